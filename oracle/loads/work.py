"""Takes many modules of the standard library through their work, again and again, until it is ended."""

import ast
import bz2
import collections
import csv
import datetime
import decimal
import difflib
import hashlib
import io
import json
import lzma
import pickle
import random
import re
import sqlite3
import string
import struct
import textwrap
import threading
import xml.etree.ElementTree as tree
import zlib


def text(words):
    return " ".join("".join(random.choices(string.ascii_lowercase, k=random.randint(2, 9))) for _ in range(words))


def records(number):
    return [{"id": i, "name": text(3), "tags": text(5).split(), "value": random.random()} for i in range(number)]


def databases():
    base = sqlite3.connect(":memory:")
    base.create_function("twice", 1, lambda value: value * 2)
    base.execute("create table t(id integer primary key, name text, value real)")
    base.executemany("insert into t values(?, ?, ?)", [(r["id"], r["name"], r["value"]) for r in records(200)])
    list(base.execute("select name, twice(value) from t where name like '%a%' order by value desc"))
    base.close()


def formats():
    data = records(100)
    assert json.loads(json.dumps(data, indent=1)) == data
    assert pickle.loads(pickle.dumps(data)) == data
    out = io.StringIO()
    csv.DictWriter(out, list(data[0])).writerows(data)
    root = tree.Element("root")
    for record in data:
        tree.SubElement(root, "record", name=record["name"]).text = str(record["value"])
    tree.fromstring(tree.tostring(root))


def compression():
    data = text(3000).encode()
    for module in (zlib, bz2, lzma):
        assert module.decompress(module.compress(data)) == data
    hashlib.sha256(data).hexdigest()


def texts():
    words = text(800)
    re.sub(r"(\w+)\s+(\w+)", lambda match: match.group(2).upper(), words)
    collections.Counter(re.findall(r"[aeiou]{2,}", words)).most_common(5)
    textwrap.fill(words, 60)
    list(difflib.unified_diff(words.split()[:80], text(80).split()))
    re.compile("|".join(set(words.split()[:40])))


def numbers():
    sum(decimal.Decimal(i) / 7 for i in range(500))
    sorted(2 ** random.randint(1, 2000) for _ in range(300))
    struct.pack("200d", *[random.random() for _ in range(200)])
    datetime.datetime.now().isoformat()


def code():
    source = "\n".join(f"def f{i}(a, b={i}): return [x * {i} for x in range(a) if x % b]" for i in range(40))
    names = {}
    exec(compile(ast.parse(source), "made", "exec"), names)
    names["f7"](50)


def deep(depth):
    return [text(2)] if depth == 0 else sorted([text(1)] + deep(depth - 1), key=lambda word: word.upper())


def work():
    for task in (databases, formats, compression, texts, numbers, code, lambda: deep(30)):
        task()


def forever():
    while True:
        work()


threading.Thread(target=forever, daemon=True).start()
forever()
