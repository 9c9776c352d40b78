"""Features of raw URLs as scikit-learn transformers: part of the model, so that scoring cannot differ from training.

All of them lay a chunk of URLs end to end in one byte buffer and work on the buffer: a Python loop over characters
takes 90 us a URL, this 10 to 20. Nothing is learnt from data, so that nothing can leak from test rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin

from bigdata_assets.malicious_urls.logic.domains import (
    domain_of_host,
    is_ip_address,
    normalise,
    scheme_length,
    written_host,
)

CHUNK_URLS = 1_024
"""URLs in memory at once while features are made: of usual length, the buffers then stay in a core's cache."""
MULTIPLIER = np.uint32(0x01000193)
END = b"\xff"
"""Marks both ends of a URL in the buffer; no UTF-8 text has this byte."""

_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32
_SHAPE = _LOWER.copy()
_SHAPE[ord("0") : ord("9") + 1] = ord("0")
"""Each byte's stand-in in the shape of a word: `item123` and `item456` have one shape."""


@dataclass(frozen=True)
class _Buffer:
    """URLs end to end, each between two `END` bytes. Positions count bytes of the buffer."""

    data: np.ndarray
    """(bytes,) uint8, as written."""
    starts: np.ndarray
    """(urls,) position of the first END."""
    ends: np.ndarray
    """(urls,) position after the last END."""
    row: np.ndarray
    """(bytes,) int32, number of the URL."""
    path: np.ndarray
    """(urls,) where the host ends: the first `/`, `?`, `#` or backslash after the scheme, else the last END."""

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Buffer":
        """Lay out normalised URLs."""
        encoded = [END + text.encode("utf-8", "replace") + END for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        data = np.frombuffer(b"".join(encoded), np.uint8)
        ends = np.cumsum(lengths)
        starts = ends - lengths
        row = np.repeat(np.arange(len(encoded), dtype=np.int32), lengths)
        after_scheme = starts + 1 + np.fromiter(map(scheme_length, texts), np.int64, len(texts))
        path = _first(data, row, b"/?#\\", after_scheme, ends - 1)
        return cls(data, starts, ends, row, path)


def _first(data: np.ndarray, row: np.ndarray, stops: bytes, least: np.ndarray, default: np.ndarray) -> np.ndarray:
    """(urls,) first position of any of `stops` that is at least `least`, else `default`."""
    wanted = np.zeros(256, bool)
    wanted[list(stops)] = True
    at = np.flatnonzero(wanted[data])
    rows = row[at]
    valid = at >= least[rows]
    first = default.copy()
    # Of repeated rows the last assignment stays: written backwards, that is the first stop.
    first[rows[valid][::-1]] = at[valid][::-1]
    return first


def _mixed(hashes: np.ndarray, n_bits: int) -> np.ndarray:
    """The top `n_bits` of a scrambled hash; a polynomial hash's low bits say too little about its first bytes."""
    hashes = (hashes ^ (hashes >> np.uint32(15))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return (hashes >> np.uint32(32 - n_bits)).astype(np.int32)


def unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same columns, each entry 1 / sqrt(entries of its row)."""
    counts = np.diff(matrix.indptr)
    data = np.repeat((1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32), counts)
    return sparse.csr_matrix((data, matrix.indices, matrix.indptr), matrix.shape)


class _Stateless(TransformerMixin, BaseEstimator):
    """A transformer of URLs that learns nothing."""

    def fit(self, X: Sequence[str], y: object = None) -> "_Stateless":  # noqa: ARG002, N803
        """Nothing is learnt."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _in_chunks(
    urls: Sequence[str], chunk: Callable[[Sequence[str]], sparse.csr_matrix], n_columns: int
) -> sparse.csr_matrix:
    rows = [chunk(urls[start : start + CHUNK_URLS]) for start in range(0, len(urls), CHUNK_URLS)]
    if not rows:
        return sparse.csr_matrix((0, n_columns), dtype=np.float32)
    return sparse.vstack(rows, format="csr") if len(rows) > 1 else rows[0]


class HashedNgrams(_Stateless):
    """Hashed n-grams of a URL's UTF-8 bytes in lower case.

    The hash is a polynomial over the bytes, computed for all positions of a chunk at once: no Python loop per URL or
    n-gram. n-grams that begin in the host fill the lower half of the columns, those after it the upper half, since
    `login` in a host is another thing than in a path. The URL's ends are marked by a byte that no UTF-8 text has.

    Args:
        low, high: lengths of n-grams, in bytes.
        n_bits: the row has 2**n_bits columns.
        strip_scheme: see `domains.normalise`.

    Shapes: transform takes n URLs and returns a CSR matrix (n, 2**n_bits), float32. An n-gram that occurs twice is
    there twice, each time as 1 / sqrt(n-grams of the URL): for a linear model the sum is what counts, and sorting to
    add them up would take half of the time.
    """

    def __init__(self, low: int = 2, high: int = 6, n_bits: int = 20, strip_scheme: bool = True) -> None:
        self.low = low
        self.high = high
        self.n_bits = n_bits
        self.strip_scheme = strip_scheme

    def transform(self, X: Sequence[str]) -> sparse.csr_matrix:  # noqa: N803
        return _in_chunks(X, self._chunk, 1 << self.n_bits)

    def regions(self, rows: sparse.csr_matrix) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """The n-grams of hosts, and of what follows them, of rows made by `transform`; (n, 2**(n_bits - 1)) each."""
        half = 1 << (self.n_bits - 1)
        in_path = rows.indices >= half
        # Before entry i of the matrix stand `before[i]` entries of paths: row bounds of both parts without a search.
        before = np.concatenate([[0], np.cumsum(in_path)])[rows.indptr]
        ones = np.ones(len(rows.indices), np.float32)
        shape = (rows.shape[0], half)
        hosts = sparse.csr_matrix((ones[~in_path], rows.indices[~in_path], rows.indptr - before), shape)
        paths = sparse.csr_matrix((ones[in_path], rows.indices[in_path] - half, before), shape)
        return unit_rows(hosts), unit_rows(paths)

    def _chunk(self, urls: Sequence[str]) -> sparse.csr_matrix:
        buffer = _Buffer.of([normalise(url, strip_scheme=self.strip_scheme) for url in urls])
        data = _LOWER[buffer.data]
        lengths = buffer.ends - buffer.starts
        room = buffer.ends[buffer.row] - np.arange(len(data))  # bytes from here to the end of this URL
        in_path = (room <= (buffer.ends - buffer.path)[buffer.row]).astype(np.int32) << (self.n_bits - 1)
        per_length = [np.maximum(lengths - n + 1, 0) for n in range(self.low, self.high + 1)]
        bounds = np.concatenate([[0], np.cumsum(np.sum(per_length, axis=0))])
        columns = np.empty(bounds[-1], np.int32)
        # Where the n-gram that begins at a byte is written, less the byte's position.
        shift = bounds[:-1] - buffer.starts
        hashes = np.zeros(len(data), np.uint32)
        values = data.astype(np.uint32) + np.uint32(1)
        for n in range(1, self.high + 1):
            size = len(data) - n + 1
            if size <= 0:
                break
            hashes = hashes[:size] * MULTIPLIER + values[n - 1 :]
            if n < self.low:
                continue
            at = np.flatnonzero(room[:size] >= n)
            columns[at + shift[buffer.row[at]]] = _mixed(hashes[at], self.n_bits - 1) | in_path[at]
            shift = shift + per_length[n - self.low]
        shape = (len(urls), 1 << self.n_bits)
        return unit_rows(sparse.csr_matrix((np.ones(len(columns), np.float32), columns, bounds), shape))


_WORD_BYTE = np.zeros(256, bool)
_WORD_BYTE[[*range(ord("0"), ord("9") + 1), *range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)]] = True
_WORD_BYTE[128:255] = True  # UTF-8 of anything but ASCII


class HashedWords(_Stateless):
    """Hashed words of a URL: each word, its shape with the mark before it, and pairs of neighbouring shapes.

    A word is a run of letters and digits; its shape has 0 for each digit. Words of the host and of what follows it
    have hashes of their own.

    Shapes: transform takes n URLs and returns a CSR matrix (n, 2**n_bits), float32, entries as in `HashedNgrams`.
    """

    def __init__(self, n_bits: int = 18, strip_scheme: bool = True) -> None:
        self.n_bits = n_bits
        self.strip_scheme = strip_scheme

    def transform(self, X: Sequence[str]) -> sparse.csr_matrix:  # noqa: N803
        return _in_chunks(X, self._chunk, 1 << self.n_bits)

    def _chunk(self, urls: Sequence[str]) -> sparse.csr_matrix:
        buffer = _Buffer.of([normalise(url, strip_scheme=self.strip_scheme) for url in urls])
        first, last = _runs(_WORD_BYTE[buffer.data])
        row = buffer.row[first]
        region = (first >= buffer.path[row]).astype(np.uint32) * np.uint32(0x9E3779B9)
        words, shapes = (_range_hashes(table[buffer.data], first, last) for table in (_LOWER, _SHAPE))
        before = buffer.data[first - 1].astype(np.uint32) * np.uint32(7919)
        same_url = np.flatnonzero(row[1:] == row[:-1])
        pairs = shapes[same_url] + shapes[same_url + 1] * np.uint32(31)
        columns = np.concatenate(
            [
                _mixed(words ^ region ^ np.uint32(1), self.n_bits),
                _mixed((shapes ^ region ^ np.uint32(2)) + before, self.n_bits),
                _mixed(pairs ^ np.uint32(3), self.n_bits),
            ]
        )
        rows = np.concatenate([row, row, row[same_url]])
        entries = (np.ones(len(rows), np.float32), (rows, columns))
        matrix = sparse.csr_matrix(entries, (len(urls), 1 << self.n_bits))
        matrix.sum_duplicates()
        return unit_rows(matrix)


def _runs(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First positions of runs of True, and positions after their last."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _range_hashes(data: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Polynomial hashes of data[first:last], all from one cumulative sum.

    The multiplier is odd, so that it has an inverse modulo 2**32: summing byte * inverse**position and scaling the
    difference of two sums by multiplier**(last - 1) gives the hash whatever stands before.
    """
    inverse = np.uint32(pow(int(MULTIPLIER), -1, 2**32))
    powers = np.cumprod(np.full(len(data), MULTIPLIER), dtype=np.uint32)
    inverses = np.cumprod(np.full(len(data), inverse), dtype=np.uint32)
    sums = np.zeros(len(data) + 1, np.uint32)
    np.cumsum((data.astype(np.uint32) + np.uint32(1)) * inverses, dtype=np.uint32, out=sums[1:])
    return (sums[last] - sums[first]) * powers[last - 1]


WORDS = (
    "login log-in signin sign-in logon account secur verif update bank paypal ebay amazon apple icloud microsoft "
    "office outlook google facebook instagram whatsapp netflix dropbox docs drive yahoo aol chase wells confirm webscr "
    "admin wp-content wp-includes wp-admin themes plugins cgi-bin includes modules templates component tmpl option "
    "com_ view= article itemid task= catid user content free download exe mozi bins install setup crack images img "
    "upload file password pass client customer support service billing invoice payment wallet token session cmd= "
    "redirect url= email= product shop cart wiki forum blog news video music book people city photo school university "
    "index default home page id= cat= lang= utm_ // .. http www. .com .net .org .php .html"
).split()
"""Parts of URLs that the literature on phishing, defacement and malware names; looked for in host and path apart."""
BRANDS = frozenset(
    "paypal ebay amazon apple icloud microsoft office outlook google facebook instagram whatsapp netflix dropbox yahoo "
    "aol chase wells".split()
)
TLDS = (
    "com org net edu gov info biz mil int de uk br ru ca fr it nl au jp cn pl in eu us es ro cz cc tv tk ml ga cf gq "
    "xyz top online site club io co me hu se ch dk no fi be at gr pt tr ua kr tw hk vn id th my sg za mx ar cl pe ir "
    "il pk ws su pw link live shop app dev"
).split()
EXTENSIONS = (
    "php html htm shtml phtml asp aspx jsp cgi pl do cfm exe dll zip rar 7z gz jar apk sh bin doc docx xls pdf txt xml "
    "js css jpg jpeg png gif ico swf mp3 mp4 arm arm5 arm7 mips mpsl x86 i586 m68k sh4 ppc spc m a"
).split()
MARKS = "./-_?=&%@:;,~+#!*()$'|[] "
REGIONS = ("host", "path", "query")
CHARACTERS = ("other", "digits", "vowels", "consonants", "capitals", "non-ascii", *(f"'{mark}'" for mark in MARKS))
MEASURES = (
    "length", "host length", "path length", "query length", "domain length", "subdomain length", "host labels",
    "subdomains", "path depth", "is ip", "has port", "has user", "scheme length", "starts with www", "host alone",
    "file name length", "entropy", "host entropy", "brand before domain",
)  # fmt: skip
RUNS = (
    "digit share", "capital share", "vowel share", "words", "longest word", "mean word length", "longest number",
    "longest consonants", "mixed words", "longest mixed word", "numbers", "letter-digit switches",
)  # fmt: skip

_CHARACTER_OF = np.zeros(256, np.int64)
_CHARACTER_OF[ord("0") : ord("9") + 1] = 1
_CHARACTER_OF[ord("a") : ord("z") + 1] = 3
_CHARACTER_OF[list(b"aeiou")] = 2
_CHARACTER_OF[ord("A") : ord("Z") + 1] = 4
_CHARACTER_OF[128:] = 5
_CHARACTER_OF[list(MARKS.encode())] = 6 + np.arange(len(MARKS))
_DIGIT = _CHARACTER_OF == 1
_VOWEL, _CONSONANT = (_CHARACTER_OF[_LOWER] == code for code in (2, 3))
_TLD_CODES = {name: code for code, name in enumerate(TLDS)}
_EXTENSION_CODES = {name: code for code, name in enumerate(EXTENSIONS)}


def _word_tables() -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By word length: the word's number by the top 16 bits of its hash (else -1), and each word's whole hash."""
    hashes = np.zeros(len(WORDS), np.uint32)
    tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for number, word in enumerate(WORDS):
        data = np.frombuffer(word.encode(), np.uint8)
        hashes[number] = _range_hashes(data, np.array([0]), np.array([len(data)]))[0]
        table, _ = tables.setdefault(len(word), (np.full(1 << 16, -1, np.int16), hashes))
        table[_mixed(hashes[number : number + 1], 16)] = number
    return tables


_WORD_TABLES = _word_tables()


class HandMadeFeatures(_Stateless):
    """Lexical features of a URL, as phishing research uses them: lengths, counts, shares, entropy, words, suffix.

    Characters, words and runs are counted in host, path and query apart.

    Shapes: transform takes n URLs and returns (n, len(names())) float32.
    Source: Ma et al., "Beyond Blacklists", KDD 2009; Mamun et al., "Detecting Malicious URLs Using Lexical Analysis",
    NSS 2016, from which most of malicious_phish's classes come.
    """

    def __init__(self, strip_scheme: bool = True) -> None:
        self.strip_scheme = strip_scheme

    def transform(self, X: Sequence[str]) -> np.ndarray:  # noqa: N803
        result = np.zeros((len(X), len(self.names())), np.float32)
        for start in range(0, len(X), CHUNK_URLS):
            texts = [normalise(url, strip_scheme=self.strip_scheme) for url in X[start : start + CHUNK_URLS]]
            _HandMade(texts, result[start : start + CHUNK_URLS]).fill()
        return result

    @staticmethod
    def names() -> list[str]:
        """Names of the columns."""
        return [
            *MEASURES,
            *(f"{region} {character}" for region in REGIONS for character in CHARACTERS),
            *(f"{region} {run}" for region in REGIONS for run in RUNS),
            *(f"suffix {tld}" for tld in (*TLDS, "other")),
            "suffix length",
            *(f"extension {name}" for name in (*EXTENSIONS, "none", "other")),
            "extension length",
            *(f"{region} has {word}" for region in REGIONS[:2] for word in WORDS),
        ]


class _HandMade:
    """One chunk's hand-made features, written into `out` block by block in the order of `HandMadeFeatures.names`."""

    def __init__(self, texts: Sequence[str], out: np.ndarray) -> None:
        self.texts, self.out, self.column = texts, out, 0
        self.hosts = [written_host(text) for text in texts]
        self.domains = [domain_of_host(name) for name in self.hosts]
        self.buffer = buffer = _Buffer.of(texts)
        self.lower = _LOWER[buffer.data]
        self.inside = buffer.data != END[0]
        self.query = _first(buffer.data, buffer.row, b"?#", buffer.path, buffer.ends - 1)
        at = np.arange(len(buffer.data))
        self.region = (at >= buffer.path[buffer.row]).astype(np.int64) + (at >= self.query[buffer.row])
        self.key = buffer.row * np.int64(len(REGIONS)) + self.region
        self.n_keys = len(texts) * len(REGIONS)

    def fill(self) -> None:
        counts = self._counts()
        hits = self._words()
        self._put(self._measures(counts, hits))
        self._put(counts)
        self._put(self._run_features(counts))
        self._suffixes()
        self._extensions()
        found = np.zeros((len(self.texts), 2, len(WORDS)), np.float32)
        found[hits[0], (hits[1] >= self.buffer.path[hits[0]]).astype(np.int64), hits[2]] = 1
        self._put(found)

    def _put(self, block: np.ndarray) -> None:
        flat = block.reshape(len(self.texts), -1)
        self.out[:, self.column : self.column + flat.shape[1]] = flat
        self.column += flat.shape[1]

    def _counts(self) -> np.ndarray:
        """(urls, regions, CHARACTERS): how often each kind of character occurs."""
        kinds = (self.key * len(CHARACTERS) + _CHARACTER_OF[self.buffer.data])[self.inside]
        counts = np.bincount(kinds, minlength=self.n_keys * len(CHARACTERS))
        return counts.reshape(-1, len(REGIONS), len(CHARACTERS))

    def _words(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """URL, position and number of each of `WORDS` that occurs."""
        rows, places, numbers = [], [], []
        hashes = np.zeros(len(self.lower), np.uint32)
        values = self.lower.astype(np.uint32) + np.uint32(1)
        for n in range(1, min(max(_WORD_TABLES), len(self.lower)) + 1):
            hashes = hashes[: len(values) - n + 1] * MULTIPLIER + values[n - 1 :]
            if n not in _WORD_TABLES:
                continue
            table, whole = _WORD_TABLES[n]
            number = table[_mixed(hashes, 16)]
            at = np.flatnonzero(number >= 0)
            at = at[hashes[at] == whole[number[at]]]
            rows.append(self.buffer.row[at])
            places.append(at)
            numbers.append(number[at])
        return np.concatenate(rows), np.concatenate(places), np.concatenate(numbers)

    def _measures(self, counts: np.ndarray, hits: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        buffer, n = self.buffer, len(self.texts)
        lengths = counts.sum(axis=2)
        hosts, domains = (np.fromiter(map(len, names), np.int64, n) for names in (self.hosts, self.domains))
        labels, domain_labels = (
            np.fromiter((name.count(".") + 1 for name in names), np.int64, n) for names in (self.hosts, self.domains)
        )
        slashes = np.flatnonzero((buffer.data == ord("/")) & (self.region == 1))
        last_slash = buffer.path.copy()
        last_slash[buffer.row[slashes]] = slashes
        is_brand = np.array([word in BRANDS for word in WORDS])[hits[2]]
        branded = np.zeros(n)
        branded[hits[0][is_brand & (hits[1] < (buffer.path - domains)[hits[0]])]] = 1
        self.file_start, marks = last_slash + 1, 6 + np.array([MARKS.index(mark) for mark in "/:@"])
        schemes = np.fromiter(map(scheme_length, self.texts), np.int64, n)
        columns = (
            lengths.sum(axis=1),
            *lengths.T,
            domains,
            np.maximum(hosts - domains, 0),
            labels,
            labels - domain_labels,
            counts[:, 1, marks[0]],
            [(name[-1:].isdigit() or ":" in name) and is_ip_address(name) for name in self.hosts],
            counts[:, 0, marks[1]] > (schemes > 0),
            counts[:, 0, marks[2]] > 0,
            schemes,
            [text[:4].lower() == "www." for text in self.texts],
            lengths[:, 1:].sum(axis=1) == 0,
            np.maximum(self.query - last_slash - 1, 0),
            self._entropy_bits(self.inside),
            self._entropy_bits(self.inside & (self.region == 0)),
            branded,
        )
        return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)

    def _entropy_bits(self, counted: np.ndarray) -> np.ndarray:
        """(urls,) Shannon entropy of the counted bytes, in bits per byte."""
        kinds = (self.buffer.row * np.int64(256) + self.lower)[counted]
        counts = np.bincount(kinds, minlength=256 * len(self.texts)).reshape(-1, 256)
        totals = np.maximum(counts.sum(axis=1), 1)
        rows, columns = np.nonzero(counts)
        found = counts[rows, columns]
        information = np.bincount(rows, found * np.log2(found), minlength=len(self.texts))
        return np.maximum(np.log2(totals) - information / totals, 0)

    def _run_features(self, counts: np.ndarray) -> np.ndarray:
        """(urls, regions, RUNS)."""
        data, key = self.buffer.data, self.key
        is_word, is_digit = _WORD_BYTE[data], _DIGIT[data]
        first, last = _runs(is_word)
        sizes, where = last - first, key[first]
        digits = np.concatenate([[0], np.cumsum(is_digit)])
        n_digits = digits[last] - digits[first]
        mixed, number = (n_digits > 0) & (n_digits < sizes), n_digits == sizes
        words = np.bincount(where, minlength=self.n_keys)
        switches = np.flatnonzero(is_word[1:] & is_word[:-1] & (is_digit[1:] != is_digit[:-1]))
        totals = np.maximum(counts.sum(axis=2).reshape(-1), 1)
        columns = (
            counts[:, :, 1].reshape(-1) / totals,
            counts[:, :, 4].reshape(-1) / totals,
            np.bincount(key[_VOWEL[data]], minlength=self.n_keys) / totals,
            words,
            self._longest(where, sizes),
            np.bincount(where, sizes, minlength=self.n_keys) / np.maximum(words, 1),
            self._longest(*self._keyed_runs(is_digit)),
            self._longest(*self._keyed_runs(_CONSONANT[data])),
            np.bincount(where[mixed], minlength=self.n_keys),
            self._longest(where[mixed], sizes[mixed]),
            np.bincount(where[number], minlength=self.n_keys),
            np.bincount(key[switches], minlength=self.n_keys),
        )
        return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)

    def _keyed_runs(self, flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, last = _runs(flags)
        return self.key[first], last - first

    def _longest(self, where: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        longest = np.zeros(self.n_keys, np.int64)
        np.maximum.at(longest, where, sizes)
        return longest

    def _suffixes(self) -> None:
        names = [name.rpartition(".")[2] for name in self.hosts]
        self._one_hot([_TLD_CODES.get(name, len(TLDS)) for name in names], len(TLDS) + 1)
        self._put(np.array([len(name) for name in names], np.float32))

    def _extensions(self) -> None:
        text = self.lower.tobytes()
        bounds = zip(self.file_start.tolist(), self.query.tolist(), strict=True)
        names = [text[start:end].rpartition(b".") for start, end in bounds]
        found = [name.decode("latin1") if dot else "" for _, dot, name in names]
        codes = [_EXTENSION_CODES.get(name, len(EXTENSIONS) + 1) if name else len(EXTENSIONS) for name in found]
        self._one_hot(codes, len(EXTENSIONS) + 2)
        self._put(np.array([len(name) for name in found], np.float32))

    def _one_hot(self, codes: Sequence[int], n_columns: int) -> None:
        # `out` begins as zeros: of each row only the one is written.
        self.out[np.arange(len(codes)), self.column + np.asarray(codes, np.int64)] = 1
        self.column += n_columns
