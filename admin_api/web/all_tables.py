"""Every table of the pages' own database; the read model's follow from the log and look after themselves."""

from __future__ import annotations

from admin_api.web import tables
from admin_api.web.certificates import tables as certificate_tables
from admin_api.web.plans import tables as plans_tables
from admin_api.web.sign_in import tables as sign_in_tables
from admin_api.web.today import tables as today_tables

# Importing them puts their tables into the metadata.
ALL = (tables, certificate_tables, sign_in_tables, today_tables, plans_tables)
METADATA = tables.WebTable.metadata
