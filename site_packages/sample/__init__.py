"""Generated, plainly labelled day admissions for trying Zegel without a patient's data."""
