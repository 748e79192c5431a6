"""The images of one RBD pool: found, built beside and renamed, grown, put aside; and who holds them.

Blocking calls, for worker threads. Invariants: a name appears once and complete (SAFETY rule 18); only the
unfinished images of one's own operation are ever removed; what is attached for guests is opened read-only
here, so that this process is never a watcher of it; RBD's own exclusive lock is the only lock (an advisory
one on top of it would keep the guest from writing).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import rbd

from reconciler.adapters.pool_directory import check_name
from reconciler.adapters.rbd import blocklist
from reconciler.adapters.rbd.cluster import Cluster
from reconciler.adapters.rbd.errors import ceph_errors
from reconciler.resources.errors import (
    AlreadyExists,
    ImageInUse,
    ImageInvalid,
    ImageMissing,
    PoolUnavailable,
)
from reconciler.resources.images import Holder, ImageInfo, RbdIdentity, RbdName
from reconciler.resources.virtualmachine import DiskFormat

TRASH_SECONDS = 14 * 86400
"""How long `rbd trash purge` leaves alone what was put aside."""

_BASE = "vcl-base-"
"""How the snapshots begin that clones are built on."""

_FEATURES = {
    rbd.RBD_FEATURE_LAYERING: "layering",
    rbd.RBD_FEATURE_STRIPINGV2: "striping",
    rbd.RBD_FEATURE_EXCLUSIVE_LOCK: "exclusive-lock",
    rbd.RBD_FEATURE_OBJECT_MAP: "object-map",
    rbd.RBD_FEATURE_FAST_DIFF: "fast-diff",
    rbd.RBD_FEATURE_DEEP_FLATTEN: "deep-flatten",
    rbd.RBD_FEATURE_JOURNALING: "journaling",
    rbd.RBD_FEATURE_DATA_POOL: "data-pool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """One pool and namespace. Every method raises PoolUnavailable when Ceph does not answer or refuses."""

    cluster: Cluster
    pool: str
    namespace: str = ""

    def name(self, image: str) -> RbdName:
        return RbdName(pool=self.pool, namespace=self.namespace, image=image)

    def check(self, image: str) -> None:
        """Raises ImageInvalid unless `image` can be the name of an image in this pool."""
        check_name(image)
        if "@" in image:
            raise ImageInvalid(f"'{image}' cannot name an image: no '@'")

    def inspect(self, image: str) -> ImageInfo | None:
        """The image, or None when proven absent."""
        self.check(image)
        with self._answers(image), self.context() as context:
            try:
                with rbd.Image(context, image, read_only=True) as opened:
                    return self.describe(image, opened)
            except rbd.ImageNotFound:
                self._require_namespace(context)
                return None

    def identity(self, name: RbdName) -> str:
        """Of an image of any pool of this cluster. Raises ImageMissing."""
        with self._answers(name.image), self.cluster.pool(name.pool, name.namespace) as context:
            try:
                with rbd.Image(context, name.image, read_only=True) as opened:
                    return str(self._identity(name, opened))
            except rbd.ImageNotFound as error:
                raise ImageMissing(f"there is no image {name.spec}") from error

    def describe(self, image: str, opened: Any) -> ImageInfo:
        """What an open image is."""
        name = self.name(image)
        return ImageInfo(
            name=image,
            path=name.path,
            identity=str(self._identity(name, opened)),
            size=opened.size(),
            format=DiskFormat.RAW,
            backing=_parent(opened),
            features=_features(opened.features()),
        )

    def _identity(self, name: RbdName, opened: Any) -> RbdIdentity:
        return RbdIdentity(
            fsid=self.cluster.fsid(), pool=name.pool, namespace=name.namespace, id=str(opened.id())
        )

    def begin(self, image: str, operation: str) -> str:
        """The name to build under; what the operation left behind is removed. Raises AlreadyExists, and
        ImageInUse while a client that died still counts as open (half a minute)."""
        self.check(image)
        partial = f".vcl-{hashlib.sha256(f'{image}/{operation}'.encode()).hexdigest()[:20]}"
        self.discard(partial)
        if self.inspect(image) is not None:
            raise AlreadyExists(f"the image '{image}' exists already in {self.where}")
        return partial

    def discard(self, partial: str) -> None:
        """Remove an unfinished image."""
        with self._answers(partial), self.context() as context, contextlib.suppress(rbd.ImageNotFound):
            rbd.RBD().remove(context, partial)

    def create(self, partial: str, size: int) -> None:
        """An empty image with the features that the cluster gives new ones."""
        with self._answers(partial), self.context() as context:
            try:
                rbd.RBD().create(context, partial, size)
            except rbd.ImageNotFound:
                self._require_namespace(context)
                raise

    def clone(self, partial: str, template: RbdName) -> int:
        """A copy-on-write clone of the template's present content; the template's size. Raises ImageMissing,
        and ImageInUse when somebody may write to the template."""
        with self.cluster.pool(template.pool, template.namespace) as parents, self._answers(template.spec):
            with rbd.Image(parents, template.image, read_only=True) as opened:
                self.refuse_writers(template.spec, opened)
                size = int(opened.size())
                base = _unchanged_since(opened, size)
            if base is None:
                with rbd.Image(parents, template.image) as opened:
                    base = _protect(opened)
            with self.context() as context:
                rbd.RBD().clone(parents, template.image, base, context, partial)
        return size

    def resize(self, image: str, size: int) -> None:
        """Make it larger; the caller has checked that this is more."""
        with self.writable(image) as opened:
            opened.resize(size, allow_shrink=False)

    @contextlib.contextmanager
    def writable(self, image: str) -> Iterator[Any]:
        """An image of one's own, open for writing."""
        with self._answers(image), self.context() as context, rbd.Image(context, image) as opened:
            yield opened

    def publish(self, partial: str, image: str) -> None:
        """Give a finished image its name. Raises AlreadyExists.

        Of two renames to one name at the same moment RBD calls both done, and the loser's image is lost: the
        caller lets one at a time do it in this process, and the claim of the name (SAFETY rule 6) keeps the
        other nodes out. What came of it is looked at all the same.
        """
        taken = AlreadyExists(f"the image '{image}' exists already in {self.where}")
        with self._answers(image), self.context() as context:
            with rbd.Image(context, partial, read_only=True) as opened:
                mine = opened.id()
            try:
                rbd.RBD().rename(context, partial, image)
            except rbd.ImageExists as error:
                raise taken from error
            with rbd.Image(context, image, read_only=True) as opened:
                if opened.id() != mine:
                    raise taken

    def trash(self, image: str) -> None:
        """Into RBD's trash. Raises ImageInUse when somebody has it open or built on it."""
        with self._answers(image), self.context() as context:
            with rbd.Image(context, image, read_only=True) as opened:
                self.refuse_writers(image, opened)
                clones = _clones(opened)
            if clones:
                raise ImageInUse(
                    f"the image '{image}' is the template of {', '.join(clones)}", cure="delete those first"
                )
            rbd.RBD().trash_move(context, image, TRASH_SECONDS)

    def holders(self, image: str) -> tuple[Holder, ...]:
        """Everybody but this process who has it open for writing or locked; none when it does not exist."""
        self.check(image)
        return self._holders(image, lambda context: rbd.Image(context, image, read_only=True))

    def holders_by_id(self, identity: RbdIdentity) -> tuple[Holder, ...] | None:
        """The same by identity; None when it belongs to another cluster or pool."""
        if (identity.pool, identity.namespace) != (self.pool, self.namespace):
            return None
        with self._answers(""):
            if identity.fsid != self.cluster.fsid():
                return None
        return self._holders(
            identity.id, lambda context: rbd.Image(context, image_id=identity.id, read_only=True)
        )

    def break_locks(self, identity: RbdIdentity, holders: Sequence[Holder]) -> None:
        """Break the locks of clients that cannot write any more. An image that is gone has none."""
        locks = [holder for holder in holders if holder.lock]
        if not locks:
            return
        with self._answers(identity.id), self.context() as context:
            for holder in locks:
                # A lock that somebody has taken off meanwhile is as good as broken.
                with (
                    contextlib.suppress(rbd.ImageNotFound),
                    rbd.Image(context, image_id=identity.id) as opened,
                ):
                    opened.break_lock(holder.entity, holder.lock)

    @property
    def where(self) -> str:
        """The pool in words."""
        return f"the Ceph pool {self.pool}" + (f"/{self.namespace}" if self.namespace else "")

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """An I/O context of this pool."""
        return self.cluster.pool(self.pool, self.namespace)

    def _answers(self, image: str) -> contextlib.AbstractContextManager[None]:
        where = image if "/" in image else "/".join(filter(None, (self.pool, self.namespace, image)))
        return ceph_errors(where, user=self.cluster.user, pool=self.pool)

    def _require_namespace(self, context: Any) -> None:
        if self.namespace and not rbd.RBD().namespace_exists(context, self.namespace):
            raise PoolUnavailable(
                f"there is no RBD namespace '{self.namespace}' in the Ceph pool {self.pool}",
                cure=f"make it: rbd namespace create {self.pool}/{self.namespace}",
            )

    def _holders(self, what: str, opening: Callable[[Any], Any]) -> tuple[Holder, ...]:
        with self._answers(what), self.context() as context:
            try:
                with opening(context) as opened:
                    found = _who(opened, self.cluster.own_entity())
            except rbd.ImageNotFound:
                self._require_namespace(context)
                return ()
            return self._with_fences(found)

    def _with_fences(self, found: tuple[Holder, ...]) -> tuple[Holder, ...]:
        if not found:
            return ()
        listed = blocklist.read(self.cluster)
        return tuple(replace(holder, fenced=listed.covers(holder.client)) for holder in found)

    def refuse_writers(self, image: str, opened: Any) -> None:
        """Raises ImageInUse when anybody else has an open image open for writing or locked."""
        found = _who(opened, self.cluster.own_entity())
        if found:
            raise ImageInUse(f"the image '{image}' is held: {found[0].description}", cure="stop that first")


def _who(opened: Any, own: str) -> tuple[Holder, ...]:
    """Watchers and lock owners of an open image, one Holder for each client, sorted."""
    found: dict[tuple[str, str], Holder] = {}
    for watcher in opened.watchers_list():
        entity, address = f"client.{watcher['id']}", str(watcher["addr"])
        found[entity, address] = Holder(client=address, entity=entity, watching=True, description="")
    locks = opened.list_lockers() or {}
    for entity, cookie, address in locks.get("lockers", ()):
        known = found.get((entity, address)) or Holder(client=address, entity=entity, description="")
        tag, shared = str(locks["tag"]), not locks["exclusive"]
        found[entity, address] = replace(known, lock=cookie, tag=tag, shared=shared)
    holders = (holder for holder in found.values() if holder.entity != own)
    return tuple(
        sorted(
            (replace(holder, description=_described(holder)) for holder in holders), key=lambda h: h.client
        )
    )


def _described(holder: Holder) -> str:
    parts = ["has it open"] if holder.watching else []
    if holder.lock:
        kind = "a shared lock" if holder.shared else "a lock"
        parts.append(f"has {kind} on it, '{holder.lock}'" + (f" tagged '{holder.tag}'" if holder.tag else ""))
    return f"the RBD client {holder.client} ({holder.entity}: {' and '.join(parts)})"


def _features(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in sorted(_FEATURES.items()) if bits & bit)


def _parent(opened: Any) -> str | None:
    try:
        spec = opened.get_parent_image_spec()
    except rbd.ImageNotFound:
        return None
    name = RbdName(pool=spec["pool_name"], namespace=spec["pool_namespace"], image=spec["image_name"])
    return name.path


def _clones(opened: Any) -> list[str]:
    """The names of the images built on it. Without a snapshot there is none: Ceph would look into every pool,
    and wait for one that is not well."""
    if not any(True for _ in opened.list_snaps()):
        return []
    return sorted(child["image"] for child in opened.list_children2() if not child["trash"])


def _unchanged_since(opened: Any, size: int) -> str | None:
    """The newest snapshot for clones since which nothing was written; None when there is none."""
    mine = [snap for snap in opened.list_snaps() if snap["name"].startswith(_BASE) and snap["size"] == size]
    newest = max(mine, key=lambda snap: int(snap["id"]), default=None)
    if newest is None or not opened.is_protected_snap(newest["name"]):
        return None
    changed: list[int] = []
    opened.diff_iterate(0, size, newest["name"], lambda at, *_: changed.append(at), whole_object=True)
    return None if changed else str(newest["name"])


def _protect(opened: Any) -> str:
    """A new protected snapshot of the present content; its name."""
    taken = {snap["name"] for snap in opened.list_snaps()}
    number = 1
    while f"{_BASE}{number}" in taken:
        number += 1
    name = f"{_BASE}{number}"
    opened.create_snap(name)
    opened.protect_snap(name)
    return name
