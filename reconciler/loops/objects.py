"""The read model: merged objects over the node's copy of the store, for the API and the status tree.

Merging is done when somebody asks, once for each change: an idle daemon does nothing, and `get` of objects
that did not change costs a dictionary look-up. Invariants: what is served is the copy of the store at one
revision, and a watch that is told of revision N has been told every change up to N.

Whether a node is alive is not in the store: each daemon adds what it sees itself, at every look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass

from reconciler.loops.cache import StoreCache
from reconciler.loops.object_views import Known, ObjectView, dump_json, unseen
from reconciler.loops.watches import ObjectWatch
from reconciler.planning import tables
from reconciler.planning.cluster_view import NodeLine
from reconciler.planning.merge import dependents, merged_object, object_exists
from reconciler.planning.merge_node import with_liveness
from reconciler.planning.merge_vm import as_seen
from reconciler.planning.selectors import Requirements, selects
from reconciler.planning.tables import Surroundings
from reconciler.resources.errors import Expired, NotFound, StoreUnavailable
from reconciler.resources.kinds import Kind, info_for

HISTORY = 4096
"""Changes that are remembered for watches that go on from an earlier revision."""

ObjectId = tuple[Kind, str]
Listener = Callable[[frozenset[ObjectId]], None]
Liveness = Callable[[str], NodeLine | None]
"""What is seen of the node of this name; None when it is no member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectList:
    """Objects sorted by name, as of the store's `revision`."""

    views: tuple[ObjectView, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changed:
    """That an object changed at `revision`. `before`: what a reader may know of it, None when it was not
    there; `gone`: how it was last seen, when the change was its end."""

    revision: int
    id: ObjectId
    before: Known | None
    gone: ObjectView | None


class Objects:
    """get, list and watch of merged objects."""

    def __init__(self, cache: StoreCache, liveness: Liveness = lambda node: None) -> None:
        self._cache = cache
        self._liveness = liveness
        self._names: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        self._sorted: dict[Kind, tuple[str, ...]] = {}
        self._views: dict[ObjectId, ObjectView] = {}
        self._stale: set[ObjectId] = set()
        self._floors: dict[ObjectId, int] = {}
        self._history: deque[_Changed] = deque()
        self._horizon = cache.revision
        self._watches: set[ObjectWatch] = set()
        self._listeners: list[Listener] = []
        if cache.revision >= 0:
            self._take(item.key for item in cache.prefix(""))
            self._history.clear()
        cache.subscribe(self._on_changes)

    @property
    def revision(self) -> int:
        """The revision of the store that is served; -1 before it was read."""
        return self._cache.revision

    def find(self, kind: Kind, name: str) -> ObjectView | None:
        """The object, or None when there is none. Raises StoreUnavailable before the store was read."""
        self._require_store()
        return self._view((kind, name)) if name in self._names[kind] else None

    def get(self, kind: Kind, name: str) -> ObjectView:
        """The object. Raises NotFound, and StoreUnavailable before the store was read."""
        view = self.find(kind, name)
        if view is None:
            raise NotFound(f"{info_for(kind).singular} '{name}' not found")
        return view

    def list(self, kind: Kind, selector: Requirements = ()) -> ObjectList:
        """All objects of a kind whose labels match. Raises StoreUnavailable before the store was read."""
        self._require_store()
        views = (self._view((kind, name)) for name in self.names(kind))
        found = tuple(view for view in views if view and (not selector or selects(selector, view.labels)))
        return ObjectList(views=found, revision=self.revision)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names of all objects of a kind, sorted."""
        names = self._sorted.get(kind)
        if names is None:
            names = self._sorted[kind] = tuple(sorted(self._names[kind]))
        return names

    def surroundings(self, kind: Kind) -> Surroundings:
        """What rows of this kind need of other objects."""
        if tables.self_contained(kind):
            return Surroundings()
        nodes = len(self._names[Kind.NODE])
        if kind is not Kind.NODE:
            return Surroundings(nodes=nodes)
        vms = (view.object for view in self.list(Kind.VIRTUAL_MACHINE).views)
        return Surroundings(usage=tables.usage_by_node(vms), nodes=nodes)

    def table(self, kind: Kind, views: Iterable[ObjectView], revision: int) -> bytes:
        """A Table of these objects, as JSON; rows that did not change are not made again."""
        head = dump_json(tables.table(kind, (), Surroundings(), revision))
        around = self.surroundings(kind)
        return head.removesuffix(b"]}") + b",".join(view.row(around) for view in views) + b"]}"

    def watch(
        self, kind: Kind, *, name: str | None = None, selector: Requirements = (), since: int | None = None
    ) -> ObjectWatch:
        """Changes of a kind, or of one object, after revision `since`; None: first everything as ADDED.

        Raises Expired when the changes since then are not kept; close the watch when done.
        """
        self._require_store()
        watch = ObjectWatch(self, kind, name=name, selector=selector)
        if since is None:
            for known in self.names(kind):
                watch.mark(known, None)
        else:
            self._replay(watch, kind, since)
        self._watches.add(watch)
        return watch

    def forget(self, watch: ObjectWatch) -> None:
        """Stop telling a watch (ObjectWatch.close calls it)."""
        self._watches.discard(watch)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the ids of objects that may have changed or gone; returns the undo."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def seen_anew(self, nodes: Iterable[str]) -> None:
        """What is seen of these nodes has changed: tell those who watch them."""
        names = frozenset(nodes)
        changed = frozenset((Kind.NODE, name) for name in names if name in self._names[Kind.NODE])
        changed |= frozenset((Kind.VIRTUAL_MACHINE, vm) for vm in self._vms_on(names))
        for watch in self._watches:
            for kind, name in sorted(changed):
                if watch.kind is kind:
                    watch.mark(name, None)
        for listener in list(self._listeners) if changed else ():
            listener(changed)

    def _vms_on(self, nodes: Set[str]) -> Iterator[str]:
        for name in self.names(Kind.VIRTUAL_MACHINE):
            view = self._stored((Kind.VIRTUAL_MACHINE, name))
            if view is not None and view.object["status"].get("node") in nodes:
                yield name

    def _require_store(self) -> None:
        if self.revision < 0:
            raise StoreUnavailable("the store has not been read yet", cure="try again in a moment")

    def _view(self, id: ObjectId) -> ObjectView | None:
        view = self._stored(id)
        if view is not None and id[0] is Kind.VIRTUAL_MACHINE:
            return self._as_seen(view)
        line = self._liveness(id[1]) if view is not None and id[0] is Kind.NODE else None
        if view is None or line is None:
            return view
        seen = f"{line.standing} {line.master}"
        return ObjectView(*id, with_liveness(view.object, line), seen)

    def _as_seen(self, view: ObjectView) -> ObjectView:
        """The VM, with what this node knows of the one that has it."""
        merged = as_seen(view.object, self._liveness)
        if merged is view.object:
            return view
        return ObjectView(view.kind, view.name, merged, str(merged["status"]["phase"]))

    def _stored(self, id: ObjectId) -> ObjectView | None:
        """The object as the store has it."""
        view = self._views.get(id)
        if view is not None and id not in self._stale:
            return view
        merged = merged_object(self._cache, *id)
        if merged is None:  # its removal is being announced, and we come later
            return None
        self._stale.discard(id)
        metadata = merged["metadata"]
        metadata["resourceVersion"] = str(max(int(metadata["resourceVersion"]), self._floors.get(id, 0)))
        view = self._views[id] = ObjectView(*id, merged)
        return view

    def _on_changes(self, changed: frozenset[str]) -> None:
        first = self._horizon < 0
        self._take(sorted(changed))
        if first:
            # What happened before this daemon first read the store is not known, and so not replayed.
            self._history.clear()
            self._horizon = self.revision

    def _take(self, changed: Iterable[str]) -> None:
        """Note what these keys' changes may alter; indirect ones leave the object's own records as they are,
        and removed records no revision, so that the object's version has to be raised for both."""
        touched: dict[ObjectId, bool] = {}
        for key in changed:
            removed = self._cache.get(key) is None
            for kind, name in dependents(key):
                for each in (name,) if name is not None else self.names(kind):
                    raised = removed or name is None
                    touched[kind, each] = touched.get((kind, each), False) or raised
        seen = frozenset(id for id, raised in touched.items() if self._touch(id, raised))
        for listener in list(self._listeners) if seen else ():
            listener(seen)

    def _touch(self, id: ObjectId, raised: bool) -> bool:
        """Note that the object may have changed; whether it is, or was, there."""
        kind, name = id
        existed, exists = name in self._names[kind], object_exists(self._cache, kind, name)
        if not existed and not exists:
            return False
        last = self._views.get(id)
        gone = None if exists else last or unseen(*id)
        if existed != exists:
            (self._names[kind].add if exists else self._names[kind].discard)(name)
            self._sorted.pop(kind, None)
        if exists:
            self._stale.add(id)
            if raised:
                self._floors[id] = self.revision
        else:
            self._views.pop(id, None)
            self._floors.pop(id, None)
            self._stale.discard(id)
        before = (last or unseen(*id)).known() if existed else None
        self._remember(_Changed(revision=self.revision, id=id, before=before, gone=gone))
        for watch in self._watches:
            if watch.kind is kind:
                watch.mark(name, gone)
        return True

    def _remember(self, change: _Changed) -> None:
        self._history.append(change)
        if len(self._history) > HISTORY:
            self._horizon = self._history.popleft().revision

    def _replay(self, watch: ObjectWatch, kind: Kind, since: int) -> None:
        """Tell the watch what happened after `since`, and what its reader has known since then."""
        if since < self._horizon or since > self.revision:
            raise Expired(f"the changes since revision {since} are not kept any more", cure="list again")
        for name in self.names(kind):
            view = self._view((kind, name))
            watch.assume(name, view.known() if view else None)
        told: set[str] = set()
        for change in self._history:
            changed_kind, name = change.id
            if change.revision <= since or changed_kind is not kind:
                continue
            if name not in told:
                told.add(name)
                watch.assume(name, change.before)
            watch.mark(name, change.gone)
