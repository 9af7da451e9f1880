"""A tiny WordNet made by hand, as tables."""

import gzip

# Synset, lexicographer file, part of speech, relations.
SYNSETS = [
    ("1-n", "noun.animal", "n", "hypernym=3-n"),
    ("2-n", "noun.animal", "n", "hypernym=3-n"),
    ("3-n", "noun.animal", "n", ""),
    ("4-n", "noun.person", "n", "attribute=9-s,8-r"),
    ("5-n", "noun.person", "n", ""),
    ("6-v", "verb.motion", "v", "entails=7-v;similar=6-v,99-v"),
    ("7-v", "verb.motion", "v", ""),
    ("8-r", "adv.all", "r", ""),
    ("9-s", "adj.all", "s", ""),
    ("10-n", "noun.act", "n", ""),
]
SENSES = [
    ("dog", "1-n"), ("hound", "1-n"), ("cat", "2-n"), ("beast", "3-n"), ("king", "4-n"), ("queen", "5-n"),
    ("run", "6-v"), ("run", "10-n"), ("walk", "7-v"), ("walk", "10-n"), ("fast", "8-r"), ("fast", "9-s"),
    ("royal", "9-s"), ("gap", "77-n"), ("Leaf", "3-n"), ("bus", "5-n"), ("big", "9-s"), ("city", "4-n"),
]  # fmt: skip


def write(folder, plain=False):
    tables = {
        "synsets": ["synset\tlexfile\tpos\tmembers\trelations\tdefinition"]
        + [f"{synset}\t{file}\t{part}\t\t{links}\tmeaning" for synset, file, part, links in SYNSETS],
        "senses": ["lemma\tpos\tsynset"] + [f"{lemma}\t{synset[-1]}\t{synset}" for lemma, synset in SENSES],
    }
    folder.mkdir(exist_ok=True)
    for name, lines in tables.items():
        text = "\n".join(lines) + "\n"
        if plain:
            (folder / f"{name}.tsv").write_text(text, encoding="utf-8")
        else:
            (folder / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
    return folder
