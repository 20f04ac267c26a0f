"""What goes into a dossier besides the evidence: recorded, checked by other tools' rules, signed and time stamped.

The documents themselves are made by `audit.documents`; here is what needs the machine, people's keys or a network.
"""
