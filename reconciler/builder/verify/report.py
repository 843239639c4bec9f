"""Report of a verification, which the build's own code may have written."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from reconciler.builder.verify.candidate import Hot
from reconciler.core.budget import LARGEST
from reconciler.documents import Document, List, Rows

WORDS_LIMIT = 500  # characters of one problem's text in a message
PROBLEMS_LIMIT = 1000  # of each kind; the worker omits the rest
PATHS_LIMIT = 200_000  # files that a process opened
DAG_ERRORS_LIMIT = 50_000

Count = Annotated[int, Field(ge=0, lt=LARGEST)]
Kind = Literal["import", "shadowed", "slow", "pointer", "program"]


class Problem(Document):
    """Problem of a build, as reported by the worker."""

    kind: Kind
    what: str
    distribution: str
    error: str
    file: str
    line: Count
    traceback: str

    @property
    def words(self) -> str:
        """The failure as a sentence without a full stop."""
        what, error = self.what[:WORDS_LIMIT], self.error[:WORDS_LIMIT]
        match self.kind:
            case "import":
                return f"{what} does not import: {error}"
            case "shadowed":
                return (
                    f"the module {what} would be loaded from {error} of the base, and not from "
                    f"{self.distribution} of this build: both have it, and the base comes first. "
                    f"Remove {self.distribution} from the requirements, or accept the base's by "
                    f"listing {what} under checks.exclude"
                )
            case "slow":
                return (
                    f"importing {what} took {error}, so every DAG that imports it would fail. Move "
                    f"what takes long into functions, or raise that setting of the instance"
                )
            case "pointer":
                return (
                    f"{error} is a Git LFS pointer and not the file itself. Commit the file "
                    f"without LFS, or have the package fetch it"
                )
            case "program":
                return (
                    f"the program {what} cannot be started: {error}. Is it made for this machine, "
                    f"with everything that it needs?"
                )


class Opened(Document):
    """Paths in store entries that a process opened, by the entries' digests."""

    hot: Rows[tuple[str, Rows[str]]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len(self.hot) + sum(len(paths) for _, paths in self.hot) > PATHS_LIMIT:
            raise ValueError(f"it names more than {PATHS_LIMIT} paths")
        return self

    def paths(self) -> Hot:
        """Return the paths by digest."""
        return {digest: frozenset(paths) for digest, paths in self.hot}


class Report(Opened):
    """Results of importing everything in a build."""

    fatal: Annotated[Rows[Problem], Field(max_length=PROBLEMS_LIMIT)]
    warnings: Annotated[Rows[Problem], Field(max_length=PROBLEMS_LIMIT)]
    modules: Count
    seconds: Annotated[float, Field(ge=0, lt=LARGEST)]
    opens: Count
    files: Count


class DagError(Document):
    """Row of `airflow dags list-import-errors`."""

    filepath: str
    error: str


class DagErrors(List[DagError]):
    """All rows of the list."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len(self.root) > DAG_ERRORS_LIMIT:
            raise ValueError(f"it has more than {DAG_ERRORS_LIMIT} rows")
        return self
