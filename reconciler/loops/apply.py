"""What the API asks of the manifest directory: apply, delete, look, confirm.

The invariant: the directory is changed first, atomically and byte for byte, and then followed like any other
change; so a crash in between loses nothing, and what the user sees in the directory is what counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from reconciler.loops.manifest_sync import ManifestSync
from reconciler.planning.admission import FINALISED_KINDS
from reconciler.planning.document_cut import cut_document
from reconciler.planning.manifest_apply import Places, Refusal, Target, choose, effect, index
from reconciler.planning.manifest_parsed import with_problems
from reconciler.planning.manifest_values import FileView, Manifest, ObjectKey, Standing, StoreView, SyncView
from reconciler.ports.manifests import (
    ApplyInput,
    ApplyOutcome,
    ApplyReport,
    ApplyResult,
    FileReport,
    HeldDeletions,
)
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, NotFound, VclError
from reconciler.resources.kinds import Kind, find_kind
from reconciler.resources.problems import Problem
from reconciler.resources.records import SpecRecord

_MEANWHILE = (
    "somebody saved it on another node at the same time, and that counts; what you applied is kept beside it "
    "as a conflict file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """An input on its way: parsed, and what became of it so far."""

    input: ApplyInput
    parsed: FileView
    effects: tuple[ApplyOutcome, ...] = ()
    path: str | None = None
    error: str | None = None

    def results(self) -> tuple[ApplyResult, ...]:
        """One result for each object, or one for the input when none can be told."""
        named: list[tuple[ObjectKey | None, ApplyOutcome]]
        failed = ApplyOutcome.FAILED
        if self.parsed.manifests:
            outcomes = self.effects or tuple(failed for _ in self.parsed.manifests)
            named = [(m.key, outcome) for m, outcome in zip(self.parsed.manifests, outcomes, strict=True)]
        else:
            named = [(key, failed) for key in sorted(self.parsed.mentions)] or [(None, failed)]
        return tuple(
            ApplyResult(
                source=self.input.name,
                kind=key.kind.value if key else "",
                name=key.name if key else "",
                result=failed if self.error else outcome,
                path=self.path,
                warnings=self.parsed.warnings if number == 0 else (),
                error=self.error,
            )
            for number, (key, outcome) in enumerate(named)
        )


@dataclass(slots=True)
class _Call:
    """One call of `apply`: where things are, kept up to date while inputs are written."""

    files: dict[str, FileView]
    store: StoreView
    definers: dict[ObjectKey, frozenset[str]]
    taken: dict[ObjectKey, str] = field(default_factory=dict)

    @classmethod
    def of(cls, view: SyncView) -> _Call:
        """The start: what is there now."""
        return cls(
            files={file.path: file for file in view.files},
            store=view.store,
            definers=index(view.files),
        )

    def places(self) -> Places:
        """As the plan looks at it."""
        return Places(files=self.files, store=self.store, definers=self.definers, taken=self.taken)

    def note(self, taken: _Taken) -> None:
        """Later inputs see this one as written."""
        for manifest in taken.parsed.manifests:
            self.taken[manifest.key] = taken.input.name
        if taken.path is not None:
            self.files[taken.path] = replace(taken.parsed, path=taken.path)


class Manifests:
    """The ManifestService of a node."""

    def __init__(self, sync: ManifestSync) -> None:
        self._sync = sync

    async def apply(self, inputs: Sequence[ApplyInput], *, dry_run: bool) -> ApplyReport:
        """See the port. Inputs that are wrong change nothing; the others go on."""
        async with self._sync.lock:
            view = await self._sync.look()
            call = _Call.of(view)
            read = await self._read(inputs, view)
            taken = [await self._take(one, call, dry_run) for one in read]
            if not dry_run and any(one.error is None for one in taken):
                taken = await self._follow(taken)
        problems = [problem for one in taken for problem in (*one.parsed.problems, *one.parsed.warnings)]
        results = tuple(result for one in taken for result in one.results())
        return ApplyReport(results=results, problems=tuple(problems))

    async def delete(self, kind: str, name: str, *, purge: bool) -> None:
        """See the port. Idempotent for an object that is being deleted already."""
        found = find_kind(kind)
        if found is None:
            raise NotFound(f"there is no kind {kind!r}")
        key = ObjectKey(found.kind, name)
        async with self._sync.lock:
            view = await self._sync.look()
            stored = view.store.objects.get(key)
            defining = [file for file in view.files if any(m.key == key for m in file.manifests)]
            if stored is None and not defining:
                raise NotFound(f"{found.singular} '{name}' not found")
            if stored is not None and stored.terminating and not defining:
                await self._purge(key, stored.record, stored.revision, purge)
                return
            self._sync.ask_deletion(key, purge=purge)
            try:
                await self._take_out(key, defining, view)
            except VclError:
                self._sync.withdraw(key)
                raise
            self._sync.wake()
            await self._sync.round()
            self._require_begun(key)

    async def files(self) -> tuple[FileReport, ...]:
        """See the port: what the last look found."""
        last = self._sync.last
        if last is None:
            return ()
        reports = [
            FileReport(
                path=verdict.path,
                objects=tuple((key.kind.value, key.name) for key in verdict.objects),
                valid=verdict.standing in (Standing.GOOD, Standing.WAITING),
                problems=verdict.problems or ((verdict.waiting,) if verdict.waiting else ()),
            )
            for verdict in last.plan.verdicts
        ]
        reports += [
            FileReport(path=path, objects=(), valid=False, problems=(f"{path} {why}",))
            for path, why in last.view.scan.ignored.items()
        ]
        return tuple(sorted(reports, key=lambda report: report.path))

    async def read(self, path: str) -> bytes:
        """See the port: the bytes as they are in the directory now."""
        async with self._sync.lock:
            view = await self._sync.look()
        for file in view.files:
            if file.path == path and file.data is not None:
                return file.data
        raise NotFound(f"there is no manifest file {path!r}")

    def held(self) -> HeldDeletions | None:
        """See the port."""
        held = self._sync.held
        if held is None:
            return None
        objects = tuple((key.kind.value, key.name) for key in held.objects)
        return HeldDeletions(id=held.id, objects=objects, reason=held.reason)

    async def confirm(self, id: str) -> None:
        """See the port."""
        if not self._sync.confirm(id):
            raise NotFound(
                f"no deletions are held with the id {id!r} (any more)", cure="see `vcl cluster status`"
            )
        await self._sync.step()

    async def _read(self, inputs: Sequence[ApplyInput], view: SyncView) -> list[_Taken]:
        """Parse every input, and check the valid ones against each other and the directory."""
        parsed = [self._sync.reader.parse(one.name, one.content) for one in inputs]
        found: dict[str, list[Problem]] = defaultdict(list)
        for problem in await self._sync.checker.check_inputs(parsed, view.files):
            found[problem.file].append(problem)
        return [
            _Taken(input=one, parsed=with_problems(file, found[one.name]), path=one.path)
            for one, file in zip(inputs, parsed, strict=True)
        ]

    async def _take(self, taken: _Taken, call: _Call, dry_run: bool) -> _Taken:
        """Decide about an input, and write it unless it is a dry run or there already."""
        one, parsed = taken.input, taken.parsed
        if not parsed.valid:
            return replace(taken, error=_invalid(parsed))
        match choose(parsed.manifests, one.name, one.path, call.places()):
            case Refusal(message=message):
                return replace(taken, error=message)
            case Target() as target:
                pass
            case never:
                assert_never(never)
        error = _overtaken(one, target) or self._differs(parsed, target.path, one.content)
        if error:
            return replace(taken, error=error, path=target.path)
        effects = tuple(ApplyOutcome(effect(m, call.store).value) for m in parsed.manifests)
        taken = replace(taken, path=target.path, effects=effects)
        if not dry_run and target.expect != parsed.digest:
            try:
                await self._sync.ports.directory.write(target.path, one.content, expect=target.expect)
            except VclError as failure:
                return replace(taken, error=str(failure), effects=())
        call.note(taken)
        return taken

    def _differs(self, parsed: FileView, path: str, content: bytes) -> str:
        """Why the bytes would mean something else under the file's name, or nothing."""
        if parsed.path.endswith(".json") == path.endswith(".json"):
            return ""
        there = self._sync.reader.parse(path, content)
        if there.valid and _meaning(there.manifests) == _meaning(parsed.manifests):
            return ""
        return f"it would be written to {path}, where it is not valid: {_invalid(there)}"

    async def _follow(self, taken: list[_Taken]) -> list[_Taken]:
        """Bring what was written into the store, and check that it is there."""
        self._sync.wake()
        try:
            await self._sync.round()
        except VclError as error:
            why = f"it is written, but the store does not have it yet: {error}"
            return [replace(one, error=why) if one.error is None else one for one in taken]
        stored = self._sync.reader.store().files
        verdicts = {v.path: v for v in self._sync.last.plan.verdicts} if self._sync.last else {}
        followed = []
        for one in taken:
            held = stored.get(one.path or "")
            verdict = verdicts.get(one.path or "")
            there = held is not None and held.digest == one.parsed.digest
            if one.error is None and not (there and verdict and verdict.standing is Standing.GOOD):
                why = next(iter(verdict.problems), verdict.waiting) if verdict else ""
                why = why or _MEANWHILE
                one = replace(one, error=f"it is written to {one.path}, but not taken yet: {why}")
            followed.append(one)
        return followed

    async def _take_out(self, key: ObjectKey, defining: list[FileView], view: SyncView) -> None:
        """Take the object out of the file that defines it; nothing to do when no file does."""
        if len(defining) > 1:
            raise ConflictError(
                f"{key} is defined by {' and '.join(file.path for file in defining)}",
                cure="remove it from one of them, then delete it again",
            )
        if not defining:
            self._require_no_broken_file(key, view)
            return
        file = defining[0]
        if len(file.manifests) == 1:
            await self._sync.ports.directory.remove(file.path, expect=file.digest)
            return
        data = file.data or b""
        gone = next(manifest for manifest in file.manifests if manifest.key == key)
        rest = cut_document(data, gone.start, gone.end)
        after = self._sync.reader.parse(file.path, rest)
        wanted = _meaning(tuple(m for m in file.manifests if m.key != key))
        if not after.valid or _meaning(after.manifests) != wanted:
            raise ConflictError(
                f"{key} cannot be cut out of {file.path} without touching the rest",
                cure=f"remove it by hand: vcl edit, or an editor on {file.path}",
            )
        await self._sync.ports.directory.write(file.path, rest, expect=file.digest)

    def _require_no_broken_file(self, key: ObjectKey, view: SyncView) -> None:
        """A broken file may still define it: the user's unfinished work is not thrown away."""
        source = view.store.objects[key].record.source.path
        for file in view.files:
            if not file.valid and (file.path == source or key in file.mentions):
                first = file.problems[0].splitlines()[0] if file.problems else "it is not valid"
                raise ConflictError(
                    f"{file.path}, which defines {key}, is not valid: {first}",
                    cure="repair the file, or remove it; then delete the object again",
                )

    def _require_begun(self, key: ObjectKey) -> None:
        """The file may have been saved on another node at the same time: that edit survives."""
        stored = self._sync.reader.store().objects.get(key)
        if stored is not None and not stored.terminating:
            self._sync.withdraw(key)
            raise ConflictError(
                f"{key} was not deleted: its manifest was changed meanwhile, here or on another node",
                cure="look at it, and delete it again",
            )

    async def _purge(self, key: ObjectKey, record: SpecRecord, revision: int, purge: bool) -> None:
        """`--purge` for an object whose deletion has begun without it."""
        if not purge or record.purge or key.kind not in FINALISED_KINDS:
            return
        name = keys.spec(Kind(key.kind), key.name)
        await self._sync.write_record(name, replace(record, purge=True), revision)


def _overtaken(one: ApplyInput, target: Target) -> str:
    """Why the change began from bytes that are there no longer, or nothing."""
    if one.expect is None or one.expect == target.expect:
        return ""
    what = "changed" if target.expect is not None else "removed"
    return f"{target.path} was {what} by somebody else meanwhile; look at it, and make the change again"


def _invalid(parsed: FileView) -> str:
    count = len(parsed.problems)
    first = parsed.problems[0].splitlines()[0] if parsed.problems else "it cannot be read"
    return first if count == 1 else f"{first} (and {count - 1} more)"


def _meaning(manifests: tuple[Manifest, ...]) -> list[tuple[ObjectKey, object, object, object]]:
    """What documents say, without where they say it."""
    return [(m.key, dict(m.labels), dict(m.annotations), dict(m.spec)) for m in manifests]
