"""How values are written to files: frozen, and with no field this version does not know."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Part of a file: unknown fields are errors, for they may mean something this version does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
