"""The one error a user sees: what is wrong, where, and what to do, in one line."""

from pathlib import Path


class UserError(Exception):
    """Bad input. The command line prints it without a traceback and exits with status 2."""

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None, key: str = "") -> None:
        self.message, self.file, self.line, self.key = " ".join(message.split()), file, line, key
        super().__init__(str(self))

    def __str__(self) -> str:
        where = "" if self.file is None else f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return f"{where}{self.key}: {self.message}" if self.key else f"{where}{self.message}"
