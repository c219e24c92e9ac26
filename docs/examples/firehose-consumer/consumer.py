#!/usr/bin/env python3
"""Follows the events of all tenants through the firehose in Redis, and loses none of them when Redis does.

Redis only says that something happened. What has been done is written down here, in one SQLite transaction with the work itself: a row in
`done` a tenant (its last `seq`). An entry that is not the next of its tenant, or has no body, makes the consumer read the log
(`GET /api/events`) from where it stopped, so entries may come twice, late, out of order or never. Settings: README.md beside this file.
"""

import json
import logging
import os
import sqlite3
import sys
import time
import urllib.error
import urllib.request

import redis

LOG = logging.getLogger("consumer")
PAGE = 200


class Log:
    """The tenants' logs, as the API answers them."""

    def __init__(self, url, keys):
        self.url, self.keys = url, keys

    def after(self, tenant, seq):
        """Events above a cursor, page by page: (events, next cursor)."""
        while True:
            try:
                page = self._get(tenant, f"/api/events?after={seq}&limit={PAGE}")
            except urllib.error.HTTPError as refused:
                if refused.code != 410:
                    raise
                # Dropped by retention: what is left begins at `oldest`. Say so, and go on there.
                oldest = json.load(refused)["oldest"]
                LOG.warning("%s: events %s to %s are no longer kept", tenant, seq + 1, oldest - 1)
                seq = oldest - 1
                continue
            if page["next"] == seq:
                return
            seq = page["next"]
            yield page["items"], seq

    def _get(self, tenant, path):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.keys[tenant]}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


class Work:
    """What is done with the events, and how far it has come: together, or not at all."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None, timeout=30)
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("create table if not exists done (tenant text primary key, seq integer not null) without rowid")
        self.db.execute(
            "create table if not exists event (n integer primary key, tenant text not null, seq integer not null, body text not null, unique (tenant, seq))"
        )

    def last(self, tenant):
        row = self.db.execute("select seq from done where tenant = ?", (tenant,)).fetchone()
        return row[0] if row else 0

    def do(self, tenant, events, seq):
        """Does the work of these events, which end at `seq`. Another process may have been faster: what is done is not done again."""
        self.db.execute("begin immediate")
        try:
            last = self.last(tenant)
            for event in events:
                if event["seq"] > last:
                    # Your work goes here. If it cannot be part of this transaction, make it idempotent by `event["id"]`.
                    self.db.execute("insert into event (tenant, seq, body) values (?, ?, ?)", (tenant, event["seq"], json.dumps(event)))
            self.db.execute("insert into done values (?, ?) on conflict (tenant) do update set seq = max(seq, excluded.seq)", (tenant, seq))
            self.db.execute("commit")
        except BaseException:
            self.db.execute("rollback")
            raise


class Consumer:
    """One member of the group. Several may run: give each its own name, and its own shards where throughput asks for it."""

    def __init__(self, env):
        self.redis = redis.Redis.from_url(env["REDIS_URL"], decode_responses=True, protocol=2)
        first, last = (int(n) for n in env.get("SHARDS", "0-511").split("-"))
        self.streams = [f"zg:{{{n}}}:firehose" for n in range(first, last + 1)]
        self.group, self.name = env.get("GROUP", "example"), env.get("CONSUMER", "one")
        self.claim_ms = int(env.get("CLAIM_MS", "60000"))
        self.sweep_s = float(env.get("SWEEP_S", "300"))
        with open(env["KEYS_FILE"], encoding="utf-8") as file:
            self.keys = json.load(file)
        self.log, self.work = Log(env["API_URL"], self.keys), Work(env["STATE"])

    def run(self):
        while True:
            try:
                # Also after Redis was away or lost its data: what was published meanwhile may be in no stream.
                self.make_groups()
                self.sweep()
                self.follow()
            except (redis.ConnectionError, redis.TimeoutError, urllib.error.URLError) as why:
                LOG.warning("again in a second: %s", why)
                time.sleep(1)
            except redis.ResponseError as why:
                # The groups went with the data: FLUSHALL, or a Redis that began empty.
                if not any(word in str(why) for word in ("NOGROUP", "UNBLOCKED")):
                    raise
                LOG.warning("Redis has lost its data: %s", why)

    def make_groups(self):
        """A group for each stream, from the oldest entry; a stream that is not there yet begins empty."""
        with self.redis.pipeline(transaction=False) as pipe:
            for stream in self.streams:
                pipe.xgroup_create(stream, self.group, id="0", mkstream=True)
            for answer in pipe.execute(raise_on_error=False):
                if isinstance(answer, redis.ResponseError) and not str(answer).startswith("BUSYGROUP"):
                    raise answer

    def follow(self):
        """Own entries that a crash left open, then new ones, and now and then those of consumers that are gone."""
        while self.handle(self.read("0", block=None)):
            pass
        claim_at, sweep_at = 0, time.monotonic() + self.sweep_s
        while True:
            if time.monotonic() >= claim_at:
                self.claim()
                claim_at = time.monotonic() + self.claim_ms / 1000
            if time.monotonic() >= sweep_at:
                self.sweep()
                sweep_at = time.monotonic() + self.sweep_s
            self.handle(self.read(">", block=1000))

    def read(self, start, block):
        return self.redis.xreadgroup(self.group, self.name, {stream: start for stream in self.streams}, count=100, block=block) or []

    def claim(self):
        with self.redis.pipeline(transaction=False) as pipe:
            for stream in self.streams:
                pipe.xautoclaim(stream, self.group, self.name, min_idle_time=self.claim_ms, start_id="0-0", count=100)
            self.handle([(stream, answer[1]) for stream, answer in zip(self.streams, pipe.execute())])

    def handle(self, batch):
        """Answers whether there was anything."""
        for stream, entries in batch:
            for _, entry in entries:
                # An entry that was trimmed while it was open has nothing to say: the sweep finds what it meant.
                if entry:
                    self.take(entry["tenant"], int(entry["seq"]), entry.get("e"))
            if entries:
                self.redis.xack(stream, self.group, *(number for number, _ in entries))
        return any(entries for _, entries in batch)

    def take(self, tenant, seq, body):
        if tenant not in self.keys:
            return
        last = self.work.last(tenant)
        if seq <= last:
            return
        if body and seq == last + 1:
            self.work.do(tenant, [json.loads(body)], seq)
        else:
            self.catch_up(tenant)

    def catch_up(self, tenant):
        try:
            for events, cursor in self.log.after(tenant, self.work.last(tenant)):
                self.work.do(tenant, events, cursor)
        except urllib.error.HTTPError as refused:
            if refused.code not in (401, 403):
                raise
            # One tenant's key is no reason to keep the others waiting; the sweep tries again.
            LOG.error("%s: its key is refused (%s)", tenant, refused.code)

    def sweep(self):
        for tenant in self.keys:
            self.catch_up(tenant)


def show(path):
    """Prints what has been done, in the order in which it was."""
    for (body,) in Work(path).db.execute("select body from event order by n"):
        print(body)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if sys.argv[1:] == ["show"]:
        show(os.environ["STATE"])
    else:
        Consumer(os.environ).run()
