"""What enters a dossier after the approvals: signatures for other tools, and an authority's time stamp."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from admin_api.dossier_documents.signing import signed_documents
from admin_api.dossier_documents.time_stamp import Post, request_time_stamp
from audit.canonical import digest_of
from audit.documents.collection import TIME_STAMP
from audit.durable_file import write_durably
from audit.release import ReleaseStatement
from jobs.home import ConsortiumHome


def documents_for_certification(
    home: ConsortiumHome,
    statement: ReleaseStatement,
    approvers: Collection[str],
    time_stamp_url: str | None = None,
    *,
    post: Post | None = None,
) -> Callable[[bytes], Mapping[str, bytes]]:
    """A function from the dossier's signed checkpoint to the further documents, for `write_dossier`.

    `approvers` are the digests of the certificates whose approvals count. An authority is asked once per checkpoint:
    its answer is kept, so that writing the dossier again gives the same bytes.
    """

    def further(checkpoint: bytes) -> Mapping[str, bytes]:
        documents = signed_documents(home, statement, approvers)
        kept = home.path / "signatures" / f"{digest_of(checkpoint).removeprefix('sha256:')}.tsr"
        if not kept.is_file() and time_stamp_url is not None:
            kept.parent.mkdir(exist_ok=True)
            write_durably(kept, request_time_stamp(time_stamp_url, checkpoint, post))
        if kept.is_file():
            documents[TIME_STAMP] = kept.read_bytes()
        return documents

    return further
