"""Check a usage record's proof with nothing but Python: `python3 verify_proof.py [HASH OF A SEAL YOU KEPT] < proof.json`."""

import json
import sys
from hashlib import sha256


def canonical(value: dict) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


proof = json.load(sys.stdin)
record, at, seal = proof["record"], proof["leaf"], proof["seal"]
content = canonical({name: record[name] for name in record if name != "hash"})
if not proof.get("erased"):  # an erased record keeps its hash, and nobody has its words any more
    assert record["hash"] == sha256(record["prev_hash"].encode() + b"\n" + content).hexdigest(), "not the record's hash"
    assert at == sha256(b"\0" + canonical(record)).hexdigest(), "not the record's leaf"
place, width, path = record["seq"] - seal["first_seq"], seal["rows"], list(proof["path"])
while width > 1:  # on which side the next hash stands follows from the row's place
    if place % 2 or place + 1 < width:
        step, side = path.pop(0), ["right", "left"][place % 2]
        assert step["side"] == side, "another row's path"
        both = step["hash"] + at if side == "left" else at + step["hash"]
        at = sha256(b"\1" + bytes.fromhex(both)).hexdigest()
    place, width = place // 2, (width + 1) // 2
assert place == 0 and not path and at == seal["root"], "not under the seal"
content = canonical({name: seal[name] for name in seal if name != "hash"})
assert seal["hash"] == sha256(content).hexdigest(), "not the seal's hash"
assert seal["hash"] in (sys.argv[1:] or [seal["hash"]]), "another seal than the one you kept"
print(f"{record['id']} is row {record['seq']}, under seal {seal['seq']}: {seal['hash']}")
