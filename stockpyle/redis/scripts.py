"""What Redis does at once, in Lua: each script is about one key, so that it runs on any node of a cluster.

A value begins with a byte that tells what it is. Then comes a random token: by that of a lease or a lock its owner
knows it again, and by that of a record whoever has a copy of it. A key that holds no string (somebody else's list, say)
is as good as one with foreign bytes in it.

https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

from __future__ import annotations

import secrets
from typing import Final

from stockpyle.remote.epochs import EPOCH_BYTES

RECORD: Final = b"\x01"
LEASE: Final = b"\x02"
LOCK: Final = b"\x03"
EPOCH: Final = b"\x04"


def new_epoch() -> bytes:
    """Return the value of an epoch that nobody has had before."""
    return EPOCH + secrets.token_bytes(EPOCH_BYTES)


_HELD = """
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'table' then held = '' end
"""

_PUT = """
if ARGV[2] == '' then
    redis.call('DEL', KEYS[1])
elseif ARGV[3] == '0' then
    redis.call('SET', KEYS[1], ARGV[2])
else
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
"""

TAKE_LEASE = (
    _HELD
    + """
if held == false or held == ARGV[3] or held == '' then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return false
end
return held
"""
)
"""Leave a lease (1) for so many milliseconds (2) where nothing is, or what is of no use (3); else return what is."""

SWAP = (
    _HELD
    + """
if held ~= ARGV[1] then return 0 end
"""
    + _PUT
)
"""Put a value (2) for so many milliseconds (3; 0 for ever), or nothing if it is empty, in place of one's own (1)."""

TAKE_LOCK = (
    _HELD
    + """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return (held and string.byte(held) == 3) and 1 or 0
"""
)
"""Leave a lock (1) for so many milliseconds (2); return 1 if it has replaced a live one."""

PUBLISH = (
    _HELD
    + """
if held == false then return 0 end
if held ~= ARGV[1] then
    if string.byte(held) ~= 3 then redis.call('DEL', KEYS[1]) end
    return 0
end
"""
    + _PUT
)
"""As SWAP; and what is neither one's own nor anybody's lock goes: it was loaded too early."""

MAKE_EPOCH = (
    _HELD
    + """
if held and (string.byte(held) == 3 or (string.byte(held) == 4 and #held == #ARGV[1])) then return held end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""
)
"""Return the epoch that is there, or its lock; else put this one (1) there."""

ARRIVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
"""Note of which reign of the server (1) its keys are; if of another than before, put a new epoch (2) over everything:
what a server has kept over a restart, or another has copied from it, may be older than what was there since."""
