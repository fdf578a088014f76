"""What the prefix cache of a server holds, block by block, as typed values for routers. Names and meanings are those of
proto/bantam.fbs; docs/wire.md says how an index is kept up to date with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union


@dataclass(frozen=True)
class KvBlock:
    block_hash: int
    """A name, this block's alone while the server lives; not computed from the tokens"""
    token_ids: list[int]
    """As many as block_size"""
    block_size: int


@dataclass(frozen=True)
class KvBlocksStored:
    event_id: int
    """1, 2, ... within a stream; 0 in a snapshot"""
    blocks: list[KvBlock]
    """Each behind the one before"""
    parent_block_hash: int | None
    """The block before the first one; None = there is none"""
    cache_salt: str | None
    """Whose, where the caller sees other tenants' blocks; None = the caller's own"""


@dataclass(frozen=True)
class KvBlocksRemoved:
    event_id: int
    block_hashes: list[int]


@dataclass(frozen=True)
class KvCacheCleared:
    """Forget all blocks of this server."""

    event_id: int


KvCacheEvent = Union[KvBlocksStored, KvBlocksRemoved, KvCacheCleared]


@dataclass(frozen=True)
class KvSnapshotChunk:
    index: int
    count: int
    blocks: int
    """In all chunks"""
    unknown_before: int
    """0: a snapshot is complete"""


@dataclass(frozen=True)
class KvEventBatch:
    sequence_number: int
    """Without gaps within a stream"""
    timestamp: float
    """Seconds since 1970"""
    events: list[KvCacheEvent]
    snapshot: KvSnapshotChunk | None
    """Of a batch that is one of the chunks of a snapshot; their sequence numbers end at that of the state"""


def read_event(event: Any) -> KvCacheEvent:
    stored, removed = event.Stored(), event.Removed()
    if stored is not None:
        blocks = [read_block(stored.Blocks(i)) for i in range(stored.BlocksLength())]
        salt = stored.CacheSalt()
        return KvBlocksStored(event.EventId(), blocks, stored.ParentBlockHash(), None if salt is None else salt.decode())
    if removed is not None:
        return KvBlocksRemoved(event.EventId(), [removed.BlockHashes(i) for i in range(removed.BlockHashesLength())])
    if event.Cleared() is None:
        raise ValueError("an event of a kind that is not known here")
    return KvCacheCleared(event.EventId())


def read_block(block: Any) -> KvBlock:
    return KvBlock(block.BlockHash(), [block.TokenIds(i) for i in range(block.TokenIdsLength())], block.BlockSize())


def read_batch(batch: Any) -> KvEventBatch:
    chunk = batch.Snapshot()
    snapshot = None if chunk is None else KvSnapshotChunk(chunk.Index(), chunk.Count(), chunk.Blocks(), chunk.UnknownBefore())
    events = [read_event(batch.Events(i)) for i in range(batch.EventsLength())]
    return KvEventBatch(batch.SequenceNumber(), batch.Timestamp(), events, snapshot)
