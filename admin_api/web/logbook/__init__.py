"""The log: its entries in words, each with the proof that it is there, and who watches that it keeps to one story."""

from admin_api.web.logbook.routes import ROUTERS

__all__ = ["ROUTERS"]
