# What programs in Python do all day, over and over: much of it in C.
import decimal
import hashlib
import json
import re
import zlib

words = ["w%d" % (i * 7919 % 10007) for i in range(5000)]
text = " ".join(words)
while True:
    json.loads(json.dumps({w: [i, w, {"k": i}] for i, w in enumerate(words)}))
    sorted(words, key=lambda w: w[::-1])
    re.findall(r"w(\d+)5\b", text)
    re.sub(r"w\d", lambda m: m.group(0).upper(), text)
    zlib.compress(text.encode())
    hashlib.sha256(text.encode() * 10).hexdigest()
    decimal.Decimal(2).sqrt()
    sum(i * i for i in range(20000))
