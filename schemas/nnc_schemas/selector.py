"""Which layers an entry of a config_list means, and for which algorithm: what the entries of all algorithms have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictBool, StrictStr
from typing_extensions import Self

from nnc_schemas.values import Names

_SELECTORS = ("op_types", "op_names", "op_partial_names", "op_names_re")


class Selector(BaseModel):
    """The keys that select layers. An algorithm's own spec adds what it does with them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: StrictStr | None = Field(None, description="The algorithm's name; `nnc algorithms` lists them.")
    op_types: Names | None = Field(None, description="Types of layer; with names as well, a layer must match both.")
    op_names: Names | None = Field(None, description="Exact names of layers.")
    op_partial_names: Names | None = Field(None, description="Parts of names of layers.")
    op_names_re: Names | None = Field(None, description="Regular expressions that match from the name's beginning.")
    exclude: StrictBool | None = Field(None, description="True: the selected layers are left alone.")
    exclude_op_names: Names | None = Field(None, description="Exact names that this entry does not mean.")
    exclude_op_types: Names | None = Field(None, description="Types that this entry does not mean.")
    exclude_op_names_re: Names | None = Field(None, description="Regular expressions of names that this entry does not mean.")

    _place: str = PrivateAttr("")

    @property
    def place(self) -> str:
        """Where the user wrote the entry: what messages about it begin with."""
        return self._place or "config_list"

    def placed(self, place: str) -> Self:
        """Note where the user wrote the entry, and return it."""
        self._place = self._place or place
        return self

    @property
    def selects(self) -> bool:
        """Whether the entry names layers or types; without, it means every layer that the algorithm can work on."""
        return any(getattr(self, key) is not None for key in _SELECTORS)

    def excluding(self) -> Self:
        """Return the entry that leaves alone what this one treats."""
        own = {name: field.get_default(call_default_factory=True) for name, field in type(self).model_fields.items()}
        return self.model_copy(update={**{name: own[name] for name in own.keys() - Selector.model_fields.keys()}, "exclude": True})
