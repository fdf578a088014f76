"""SubscribeKvEvents, natively and by the published stubs: a subscriber knows what the prefix cache holds, in the way that a
router keeps it, and a tenant's knows of its own blocks alone."""

import grpc
import pytest
from smg_grpc_proto.generated import common_pb2

from bantam import KvBlocksRemoved, KvBlocksStored, KvCacheCleared
from conftest import CALL_LIMIT_S, DUMMY_FLAGS, Server
from native_wire import SERVICE
from test_facade import FACADE, Facade
from test_identity import LOCAL, Tenants, grpc_client

CODE = grpc.StatusCode
BLOCK = 16
LENGTH = 5 * BLOCK


def prompt_of(seed):
    return [3 + (seed * 7919 + i * 104729) % 500 for i in range(LENGTH)]


class Index:
    """What a router keeps of one server: which hash is behind which, and its tokens."""

    def __init__(self):
        self.blocks, self.last, self.seen, self.chunks, self.event_id = {}, 0, 0, 0, 0

    def apply(self, batch):
        if 0 < batch.sequence <= self.seen:  # on going on, the batch seen last may come once more
            self.event_id = len(batch.events)
            return
        assert self.last == 0 or batch.sequence == self.last + 1, "a gap"
        self.last = batch.sequence
        self.chunks += batch.is_snapshot
        for kind, event_id, parent, blocks, salt in batch.events:
            assert event_id == (0 if batch.is_snapshot else self.event_id + 1)
            self.event_id = event_id or self.event_id
            if kind == "cleared":
                self.blocks = {}
            for block in blocks:
                if kind == "removed":
                    del self.blocks[block]
                else:
                    hash_, tokens, size = block
                    assert size == BLOCK == len(tokens) and hash_ not in self.blocks
                    assert parent is None or parent in self.blocks
                    self.blocks[hash_] = (parent, tuple(tokens), salt)
                    parent = hash_

    def prefix(self, tokens, salt=None):
        """How many blocks of these tokens the server has."""
        parent, n = None, 0
        while True:
            key = (parent, tuple(tokens[n * BLOCK:(n + 1) * BLOCK]), salt)
            found = [hash_ for hash_, block in self.blocks.items() if block == key]
            if not found:
                return n
            parent, n = found[0], n + 1


class Batch:
    def __init__(self, sequence, timestamp, events, is_snapshot):
        self.sequence, self.events, self.is_snapshot = sequence, events, is_snapshot
        assert timestamp > 1.7e9


class Native:
    """A subscription in FlatBuffers."""

    def __init__(self, client, start=0):
        self.call = client.subscribe_kv_events(start, timeout=CALL_LIMIT_S)

    def __iter__(self):
        for batch in self.call:
            events = []
            for event in batch.events:
                if isinstance(event, KvBlocksStored):
                    blocks = [(block.block_hash, block.token_ids, block.block_size) for block in event.blocks]
                    events.append(("stored", event.event_id, event.parent_block_hash, blocks, event.cache_salt))
                elif isinstance(event, KvBlocksRemoved):
                    events.append(("removed", event.event_id, None, event.block_hashes, None))
                else:
                    assert isinstance(event, KvCacheCleared)
                    events.append(("cleared", event.event_id, None, [], None))
            assert batch.snapshot is None or batch.snapshot.unknown_before == 0
            yield Batch(batch.sequence_number, batch.timestamp, events, batch.snapshot is not None)


class Published:
    """The same by the stubs of smg-grpc-proto."""

    def __init__(self, stub, start=0, metadata=()):
        request = common_pb2.SubscribeKvEventsRequest(start_sequence_number=start)
        self.call = stub.SubscribeKvEvents(request, timeout=CALL_LIMIT_S, metadata=metadata)

    def __iter__(self):
        for batch in self.call:
            events = []
            for event in batch.events:
                kind = event.WhichOneof("data")
                parent, blocks, salt = None, [], None
                if kind == "stored":
                    stored = event.stored
                    parent = stored.parent_block_hash if stored.HasField("parent_block_hash") else None
                    salt = stored.cache_salt if stored.HasField("cache_salt") else None
                    blocks = [(block.block_hash, list(block.token_ids), block.block_size) for block in stored.blocks]
                elif kind == "removed":
                    blocks = list(event.removed.block_hashes)
                events.append((kind, event.event_id, parent, blocks, salt))
            snapshot = batch.HasField("snapshot")
            assert not snapshot or batch.snapshot.unknown_before == 0
            yield Batch(batch.sequence_number, batch.timestamp, events, snapshot)


def follow(subscription, index, until):
    """Reads until the index satisfies a predicate."""
    for batch in subscription:
        index.apply(batch)
        if until(index):
            return index
    raise AssertionError("the subscription ended")


def open_door(door, server, start=0):
    return Native(server.client, start) if door == "native" else Published(server.facade.stub, start)


@pytest.fixture(scope="module")
def small(directory, dummy_model):
    """A server whose cache holds three prompts."""
    server = Server(directory, dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "2", "--num-kv-blocks", "20", "--max-model-len", "256")
    with Facade(server) as server.facade:
        yield server
    server.stop()


def ask(client, tokens):
    """How many tokens of it were cached."""
    return client.generate_whole(input_ids=tokens, max_tokens=2, ignore_eos=True, timeout=CALL_LIMIT_S)[0].cached_tokens


def snapshot_of(server, door):
    """What a late subscriber learns, when nothing goes on."""
    server.wait_idle()
    subscription = open_door(door, server)
    index = follow(subscription, Index(), lambda index: index.chunks == 1)
    subscription.call.cancel()
    return index


@pytest.mark.parametrize("door", ["native", "published"])
def test_an_index_knows_what_is_cached(small, door):
    subscription = open_door(door, small)
    index = follow(subscription, Index(), lambda index: index.chunks == 1)
    hits = 0
    for turn in range(12):
        tokens = prompt_of(turn * 3 % 5 if turn % 3 else 0)
        known = index.prefix(tokens[:-1])
        assert ask(small.client, tokens) == known * BLOCK
        hits += known > 0
        late = snapshot_of(small, door)
        if index.last < late.last:
            follow(subscription, index, lambda index: index.last == late.last)
        assert late.blocks == index.blocks
        assert index.prefix(tokens) >= LENGTH // BLOCK - 1  # a copy of the last block may not be told of
    assert 0 < hits < 12
    subscription.call.cancel()


def test_both_doors_tell_the_same(small):
    ask(small.client, prompt_of(50))
    indexes = [snapshot_of(small, door) for door in ("native", "published")]
    assert indexes[0].blocks == indexes[1].blocks and indexes[0].prefix(prompt_of(50)) == LENGTH // BLOCK
    assert indexes[0].last == indexes[1].last


@pytest.mark.parametrize("door", ["native", "published"])
def test_going_on_after_a_break(small, door):
    first = open_door(door, small)
    index = follow(first, Index(), lambda index: index.chunks == 1)
    first.call.cancel()
    tokens = prompt_of(60 + (door == "native"))
    ask(small.client, tokens)
    again = open_door(door, small, index.last)
    index.event_id, index.seen = 0, index.last
    follow(again, index, lambda index: index.prefix(tokens) == LENGTH // BLOCK)
    fresh = snapshot_of(small, door)
    if index.last < fresh.last:
        follow(again, index, lambda index: index.last == fresh.last)
    assert fresh.blocks == index.blocks
    again.call.cancel()
    for start in (index.last + 1000, 1):  # of a future, and of a server before this one
        with pytest.raises(grpc.RpcError) as error:
            next(iter(open_door(door, small, start)))
        assert error.value.code() == CODE.OUT_OF_RANGE and "start with 0" in error.value.details()


def test_refusals(small, start, dummy_model):
    for path in (SERVICE, FACADE):
        with pytest.raises(grpc.RpcError) as error:
            next(small.client.stream(path + "SubscribeKvEvents", b"\xff" * 9, CALL_LIMIT_S))
        assert error.value.code() == CODE.INVALID_ARGUMENT
    without = start(dummy_model, *DUMMY_FLAGS, "--no-enable-prefix-caching")
    with pytest.raises(grpc.RpcError) as error:
        next(iter(Native(without.client)))
    assert error.value.code() == CODE.UNIMPLEMENTED and "without a prefix cache" in error.value.details()


def test_tenants(directory, start, dummy_model):
    tenants = Tenants(directory / "kv-tenants.txt", acme="", rival="", ops="admin=yes", red="cache=shared:team",
                      blue="cache=shared:team")
    server = start(dummy_model, *DUMMY_FLAGS, "--api-keys-file", str(tenants.path))
    clients = {tenant: grpc_client(server, key=key) for tenant, key in tenants.keys.items()}
    subscriptions = {tenant: Native(client) for tenant, client in clients.items()}
    indexes = {tenant: follow(subscription, Index(), lambda index: index.chunks == 1)
               for tenant, subscription in subscriptions.items()}
    prompts = {"acme": prompt_of(1), "rival": prompt_of(2), "red": prompt_of(3)}
    for tenant, tokens in prompts.items():
        ask(clients[tenant], tokens)
    whole = LENGTH // BLOCK
    follow(subscriptions["ops"], indexes["ops"], lambda index: index.prefix(prompts["red"], "group team") == whole)
    for tenant in ("acme", "rival", "red"):
        follow(subscriptions[tenant], indexes[tenant], lambda index: index.prefix(prompts[tenant]) == whole)
    follow(subscriptions["blue"], indexes["blue"], lambda index: index.prefix(prompts["red"]) == whole)
    assert indexes["ops"].prefix(prompts["acme"], "tenant acme") == whole
    assert indexes["ops"].prefix(prompts["rival"], "tenant rival") == whole
    # Nothing of another's, in what was followed and in a snapshot.
    for tenant in ("acme", "rival", "red", "blue"):
        own = prompts.get(tenant, prompts["red"])
        snapshot = follow(Native(clients[tenant]), Index(), lambda index: index.chunks == 1)
        for index in (indexes[tenant], snapshot):
            assert {block[1] for block in index.blocks.values()} == {tuple(own[i:i + BLOCK]) for i in range(0, LENGTH, BLOCK)}
            assert all(block[2] is None for block in index.blocks.values())
    for subscription in subscriptions.values():
        subscription.call.cancel()
    # The published stubs come in with a key as well.
    with grpc.insecure_channel(server.target, options=[LOCAL]) as channel:
        key = [("authorization", f"Bearer {tenants.keys['acme']}")]
        stub = type("Stub", (), {"SubscribeKvEvents": channel.unary_stream(
            FACADE + "SubscribeKvEvents", request_serializer=common_pb2.SubscribeKvEventsRequest.SerializeToString,
            response_deserializer=common_pb2.KvEventBatch.FromString)})
        index = follow(Published(stub, metadata=key), Index(), lambda index: index.chunks == 1)
        assert index.blocks == indexes["acme"].blocks
    for client in clients.values():
        client.close()
