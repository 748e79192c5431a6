"""The one error tree. Adapters translate library errors into these and chain the cause.

    VclError
    ├── InvalidInput            what a user wrote is wrong; carries every Problem
    ├── NotFound                the object does not exist
    ├── AlreadyExists           something else holds the name
    ├── ConflictError           somebody else changed it first; read again and retry
    ├── Expired                 a watch asks for changes that are not kept any more; list again
    ├── ManifestDirectoryError  the manifest directory could not be read or written; nothing changed
    ├── FenceFailed             no proof that the node is cut off; tried again
    ├── StoreError
    │   ├── StoreUnavailable    the call had no effect; retry later
    │   └── OutcomeUnknown      the call may or may not have happened, now or later
    ├── ControllerError
    │   ├── ControllerUnavailable   nothing is known; never taken for "stopped"
    │   ├── StartFailed         the hypervisor refused, with its reason
    │   ├── ChangeRefused       the running guest cannot take the change; a restart brings it
    │   ├── ChangeWaits         the guest has not done its part yet; asked again later
    │   ├── MigrationRefused    the guest cannot be migrated to that host, with the reason
    │   ├── MigrationFailed     a live migration was heard to fail; both hosts are looked at
    │   └── NotOurs             a resource of that name exists that vcl did not make
    └── DiskError
        ├── PoolUnavailable     nothing is known about the images in the pool
        ├── ImageMissing        an image that was created once is not there any more
        ├── ImageInUse          somebody else holds the image open or locked
        ├── ImageInvalid        the file is not an image vcl can use (format, rights)
        ├── NoSpace             the pool is full
        └── ShrinkRefused       an image never gets smaller

Every error has a message that says what is wrong and, where there is one, a cure that says what to do.
"""

from __future__ import annotations


class VclError(Exception):
    """Base of all errors. `cure` is a sentence for the person at the keyboard, or empty."""

    def __init__(self, message: str, *, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message}; {self.cure}" if self.cure else self.message


class InvalidInput(VclError):
    """Bad user input. `problems` holds the rendered lines, one per problem found."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.problems = problems


class NotFound(VclError):
    """The named object does not exist."""


class AlreadyExists(VclError):
    """Something else already has this name."""


class ConflictError(VclError):
    """A compare-and-set lost against another writer."""


class ManifestDirectoryError(VclError):
    """The manifest directory is full, read-only, gone or not the right one; what it holds is unchanged."""


class Expired(VclError):
    """The changes since the asked revision are not kept any more."""


class FenceFailed(VclError):
    """A fencer gave no proof. What it did may have worked, or work later: it is tried again."""


class StoreError(VclError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store did not answer or refused; the call had no effect."""


class OutcomeUnknown(StoreError):
    """The write may be applied, now or later; resolve it by its transaction id (SAFETY rule 2)."""

    def __init__(self, message: str, *, txn_id: str, cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.txn_id = txn_id


class ControllerError(VclError):
    """The resource controller (libvirt, dummy, ...) could not do what was asked."""


class ControllerUnavailable(ControllerError):
    """Nothing is known about the resource: a timeout, a lost connection, unreadable data."""


class StartFailed(ControllerError):
    """The hypervisor refused to start it. `reason` is a CamelCase word for conditions."""

    def __init__(self, message: str, *, reason: str = "StartFailed", cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.reason = reason


class ChangeRefused(ControllerError):
    """The running domain cannot take it, and has not; asking again changes nothing."""


class ChangeWaits(ControllerError):
    """The domain was told, and its guest has not done its part yet: it may do so at any time."""


class MigrationRefused(ControllerError):
    """The guest cannot be migrated there as things are; nothing was touched."""


class MigrationFailed(ControllerError):
    """The hypervisor's call was heard to fail. What is left of the guest where, is to be looked at."""


class NotOurs(ControllerError):
    """A resource with this name exists, and vcl did not make it: it is left alone."""


class DiskError(VclError):
    """A disk image or its pool could not be used. `reason` names it in conditions."""

    reason = "DiskError"


class PoolUnavailable(DiskError):
    """The pool does not answer; whether an image exists is unknown."""

    reason = "PoolUnavailable"


class ImageMissing(DiskError):
    """An image that should exist does not; never a reason to create an empty one (SAFETY rule 18)."""

    reason = "ImageMissing"


class ImageInUse(DiskError):
    """Somebody else holds the image."""

    reason = "ImageInUse"


class ImageInvalid(DiskError):
    """The file exists but cannot be used as an image."""

    reason = "ImageInvalid"


class NoSpace(DiskError):
    """The pool has no room left."""

    reason = "NoSpace"


class ShrinkRefused(DiskError):
    """The manifest asks for a smaller image than the one that exists."""

    reason = "ShrinkRefused"
