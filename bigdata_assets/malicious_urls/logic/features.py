"""Features of raw URLs as scikit-learn transformers: part of the model, so that scoring cannot differ from training."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import HashingVectorizer

from bigdata_assets.malicious_urls.logic.domains import host, is_ip_address, normalise, registered_domain

CHUNK_URLS = 4_096
"""URLs whose n-grams are in memory at once: about 300 a URL, 24 bytes each while they are sorted."""
MULTIPLIER = np.uint32(0x01000193)


class HashedNgrams(TransformerMixin, BaseEstimator):
    """Hashed n-grams of a URL's UTF-8 bytes, one sparse row of unit length per URL.

    The hash is a polynomial over the bytes, computed for all positions of a chunk at once in NumPy: no Python loop
    per URL or n-gram. n-grams of the host and of what follows it have hash spaces of their own, since `login` in a
    host is another thing than in a path. The URL's ends are marked by a byte that no UTF-8 text has.

    Args:
        part: `url`, or only its `host` or what follows it, the `path`.
        low, high: lengths of n-grams, in bytes.
        n_bits: the row has 2**n_bits columns.
        strip_scheme: see `domains.normalise`.

    Shapes: transform takes n URLs and returns a CSR matrix (n, 2**n_bits), float32.
    """

    def __init__(
        self, part: str = "url", low: int = 2, high: int = 6, n_bits: int = 18, strip_scheme: bool = True
    ) -> None:
        self.part = part
        self.low = low
        self.high = high
        self.n_bits = n_bits
        self.strip_scheme = strip_scheme

    def fit(self, X: Sequence[str], y: object = None) -> "HashedNgrams":  # noqa: ARG002, N803
        """Nothing is learnt."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: Sequence[str]) -> sparse.csr_matrix:  # noqa: N803
        chunks = [self._chunk(X[start : start + CHUNK_URLS]) for start in range(0, len(X), CHUNK_URLS)]
        if not chunks:
            return sparse.csr_matrix((0, 1 << self.n_bits), dtype=np.float32)
        return sparse.vstack(chunks, format="csr") if len(chunks) > 1 else chunks[0]

    def _text(self, url: str) -> str:
        text = normalise(url, strip_scheme=self.strip_scheme)
        if self.part == "url":
            return text
        start = text.find("://") + 3 if "://" in text[:20] else 0
        end = min((at for at in (text.find(stop, start) for stop in "/?#") if at >= 0), default=len(text))
        return text[:end] if self.part == "host" else text[end:]

    def _chunk(self, urls: Sequence[str]) -> sparse.csr_matrix:
        texts = [b"\xff" + self._text(url).lower().encode("utf-8", "replace") + b"\xff" for url in urls]
        data = np.frombuffer(b"".join(texts), np.uint8)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ends = np.cumsum(lengths)
        row_of = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
        room = ends[row_of] - np.arange(len(data))  # bytes from here to the end of this URL
        in_path = _after_host(data, row_of, ends)
        rows, columns = [], []
        hashes = np.zeros(len(data), np.uint32)
        values = data.astype(np.uint32) + np.uint32(1)
        for n in range(1, self.high + 1):
            size = len(data) - n + 1
            if size <= 0:
                break
            hashes = hashes[:size] * MULTIPLIER + values[n - 1 :]
            if n < self.low:
                continue
            fits = room[:size] >= n
            mixed = hashes[fits] ^ (in_path[:size][fits].astype(np.uint32) * np.uint32(0x9E3779B9))
            mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x85EBCA6B)
            columns.append((mixed >> np.uint32(32 - self.n_bits)).astype(np.int32))
            rows.append(row_of[:size][fits])
        shape = (len(texts), 1 << self.n_bits)
        if not columns:
            return sparse.csr_matrix(shape, dtype=np.float32)
        return _unit_rows(np.concatenate(rows), np.concatenate(columns), shape)


def _after_host(data: np.ndarray, row_of: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether each byte comes after its URL's host: after the first `/`, `?` or `#`."""
    first = ends.copy()
    stops = np.flatnonzero((data == ord("/")) | (data == ord("?")) | (data == ord("#")))
    np.minimum.at(first, row_of[stops], stops)
    return np.arange(len(data)) >= first[row_of]


def _unit_rows(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Counts, damped by 1 + log, rows scaled to length 1."""
    matrix = sparse.coo_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape).tocsr()
    matrix.sum_duplicates()
    matrix.data = 1 + np.log(matrix.data)
    squares = np.add.reduceat(np.append(matrix.data**2, 0), matrix.indptr[:-1])
    counts = np.diff(matrix.indptr)
    norms = np.sqrt(np.where(counts > 0, squares, 1)).astype(np.float32)
    matrix.data /= np.repeat(norms, counts)
    return matrix


WORDS = (
    "login signin account secure verify update bank paypal ebay confirm webscr admin wp-content wp-includes wp-admin "
    "option=com_ index.php view= article itemid content free download exe mozi bin.sh cgi-bin images user password "
    "client token session cmd product wiki forum blog news video google facebook apple docs mail ~ // component"
).split()
"""Parts of URLs that the literature on phishing and defacement names."""
CHARACTERS = "./-_?=&%@:;,~+#!*()$'\"|<>[]{}\\ "
TLDS = (
    "com org net edu gov info biz de uk br ru ca fr it nl au jp cn pl in eu us es ro cz cc tv tk ml ga cf gq xyz top "
    "online site club io co me"
).split()
_VOWELS = re.compile(r"[aeiou]")


class HashedWords(TransformerMixin, BaseEstimator):
    """Hashed words of a URL and pairs of neighbouring ones, one sparse row of unit length per URL.

    A word is a run of letters and digits. Shapes: n URLs to a CSR matrix (n, 2**n_bits).
    """

    def __init__(self, n_bits: int = 18, strip_scheme: bool = True) -> None:
        self.n_bits = n_bits
        self.strip_scheme = strip_scheme

    def fit(self, X: Sequence[str], y: object = None) -> "HashedWords":  # noqa: ARG002, N803
        """Nothing is learnt."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: Sequence[str]) -> sparse.csr_matrix:  # noqa: N803
        texts = [normalise(url, strip_scheme=self.strip_scheme) for url in X]
        if not texts:
            return sparse.csr_matrix((0, 1 << self.n_bits))
        hasher = HashingVectorizer(
            token_pattern=r"[^\W_]+",  # noqa: S106 -- no password
            ngram_range=(1, 2),
            n_features=1 << self.n_bits,
            alternate_sign=False,
        )
        return hasher.transform(texts)


_TOKENS = re.compile(r"[a-z0-9]+")
_HEX = re.compile(r"[0-9a-f]{12,}")


class HandMadeFeatures(TransformerMixin, BaseEstimator):
    """Lexical features of a URL, as phishing research uses them: lengths, counts, shares, entropy, words, suffix.

    Shapes: transform takes n URLs and returns (n, len(names())) float32.
    Source: Ma et al., "Beyond Blacklists", KDD 2009; Mamun et al., "Detecting Malicious URLs Using Lexical Analysis",
    NSS 2016, from which most of malicious_phish's classes come.
    """

    def __init__(self, strip_scheme: bool = True) -> None:
        self.strip_scheme = strip_scheme

    def fit(self, X: Sequence[str], y: object = None) -> "HandMadeFeatures":  # noqa: ARG002, N803
        """Nothing is learnt."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        rows = np.array([self._row(url) for url in X], dtype=np.float32)
        return rows.reshape(len(X), len(self.names()))

    @staticmethod
    def names() -> list[str]:
        """Names of the columns."""
        return [
            *MEASURES,
            *(f"count {character}" for character in CHARACTERS),
            *(f"has {word}" for word in WORDS),
            *(f"suffix {tld}" for tld in TLDS),
        ]

    def _row(self, url: str) -> list[float]:
        text = normalise(url, strip_scheme=self.strip_scheme)
        lower = text.lower()
        return [
            *_measures(text, lower),
            *(lower.count(character) for character in CHARACTERS),
            *(word in lower for word in WORDS),
            *_suffix(host(text)),
        ]


MEASURES = (
    "length", "host length", "path length", "query length", "subdomains", "path depth", "parameters", "digits",
    "digit share", "upper share", "vowel share", "entropy", "host digits", "host hyphens", "host entropy",
    "domain length", "domain vowel share", "longest token", "mean token length", "tokens", "longest host label",
    "hex runs", "is ip", "has port", "has user", "non-ascii", "percent escapes", "extension length", "ends in slash",
    "file name length", "file name digits", "scheme length", "starts with www",
)  # fmt: skip


def _measures(text: str, lower: str) -> Iterator[float]:
    name = host(text)
    domain = registered_domain(name)
    rest = lower[len(name) :] if lower.startswith(name) else lower.partition(name)[2]
    path, _, query = rest.partition("?")
    file_name = path.rpartition("/")[2]
    tokens = _TOKENS.findall(lower)
    lengths = [len(token) for token in tokens] or [0]
    labels = name.split(".")
    digits = sum(map(str.isdigit, lower))
    size = max(len(text), 1)
    main = domain.partition(".")[0]
    scheme = lower.partition("://")[0] if "://" in lower[:16] else ""
    yield len(text)
    yield len(name)
    yield len(path)
    yield len(query)
    yield max(len(labels) - domain.count(".") - 1, 0)
    yield path.count("/")
    yield query.count("=")
    yield digits
    yield digits / size
    yield sum(map(str.isupper, text)) / size
    yield len(_VOWELS.findall(lower)) / size
    yield entropy_bits(lower)
    yield sum(map(str.isdigit, name))
    yield name.count("-")
    yield entropy_bits(name)
    yield len(main)
    yield len(_VOWELS.findall(main)) / max(len(main), 1)
    yield max(lengths)
    yield sum(lengths) / len(lengths)
    yield len(tokens)
    yield max(map(len, labels))
    yield len(_HEX.findall(lower))
    yield is_ip_address(name)
    yield rest.startswith(":")
    yield "@" in lower[: len(name) + 32].partition("/")[0]
    yield not text.isascii()
    yield lower.count("%")
    yield len(file_name.rpartition(".")[2]) if "." in file_name else 0
    yield lower.endswith("/")
    yield len(file_name)
    yield sum(map(str.isdigit, file_name))
    yield len(scheme)
    yield lower.startswith("www.")


def entropy_bits(text: str) -> float:
    """Shannon entropy of a text's characters, bits per character."""
    if not text:
        return 0.0
    counts = np.array([text.count(character) for character in set(text)], dtype=np.float64)
    shares = counts / len(text)
    return float(-(shares * np.log2(shares)).sum())


def _suffix(name: str) -> Iterator[float]:
    tld = name.rpartition(".")[2]
    yield from (tld == known for known in TLDS)
