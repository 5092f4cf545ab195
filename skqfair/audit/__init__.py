"""Any compressed models against a reference: tables, verdicts, pages, a gate, a command line."""

from skqfair.audit._audit import CompressionAudit
from skqfair.audit._command_line import main

__all__ = ["CompressionAudit", "main"]
