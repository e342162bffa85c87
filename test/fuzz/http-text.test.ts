/** Fuzzing of what HTTP brings as text: targets, queries, header fields, encodings; and of what the command line is told. */
import assert from 'node:assert/strict'
import { SunwiseError } from '../../src/base/errors.ts'
import {
  formatAddress,
  parseAddress,
  parseBytes,
  parseDurationMs as parseDurationOfPeople,
} from '../../src/cli/quantity.ts'
import { Limits } from '../../src/config.ts'
import { HostList } from '../../src/host/http/address.ts'
import { decodeBase64, decodeBase64Url } from '../../src/host/http/base64.ts'
import { parseDurationMs } from '../../src/host/http/duration.ts'
import { parseQuery, type QueryName } from '../../src/host/http/query.ts'
import {
  acceptsLines,
  checkContentType,
  mediaTypeOf,
  parseContext,
  parseEntityTags,
  RequestFields,
  strongTagsOf,
} from '../../src/host/http/request-fields.ts'
import { bucketNameOf, decodedTooLong, decodePercent, isBucketName, KeyDecoder } from '../../src/host/http/target.ts'
import { fuzz, latin1Of, textOf } from './fuzzing.ts'

/** What `parse` gives, or undefined where it refuses with one of these codes. Any other error is one. */
function parsed<Value>(codes: readonly string[], parse: () => Value): Value | undefined {
  try {
    return parse()
  } catch (error) {
    if (error instanceof SunwiseError && codes.includes(error.code) && error.outcome === 'none') return undefined
    throw error
  }
}

const inputsOf = (texts: readonly string[]): Uint8Array[] => texts.map(latin1Of)

/** Percent-decoding by the book: undefined for anything that a target may not hold. */
function decodedByTheBook(text: string): Uint8Array | undefined {
  if (!/^(?:%[0-9A-Fa-f]{2}|[!-"$&-~])*$/.test(text)) return undefined
  const bytes = text.match(/%..|./g) ?? []
  return Uint8Array.from(bytes, (part) => (part.length === 3 ? Number.parseInt(part.slice(1), 16) : part.charCodeAt(0)))
}

fuzz('percent-decoding gives what the book says, within its bounds', () => {
  const into = new Uint8Array(40)
  return {
    inputs: inputsOf(['user:42', 'a%20b%2Fc', '%00%ff%FF', 'caf%C3%A9', 'a+b&c=d?e', '%25'.repeat(20)]),
    words: ['%', '%4', '%41', '%%', '#', ' ', '\xe9', '%zz'],
    bytesMax: 64,
    look: (input) => {
      const text = textOf(input)
      // More stands before and behind it, which is not looked at.
      const bytes = decodePercent(`%4${text}41`, 2, 2 + text.length, into)
      const wanted = decodedByTheBook(text)
      if (wanted === undefined || wanted.length > into.length) {
        assert.ok(bytes < 0 && bytes >= decodedTooLong)
        return false
      }
      assert.equal(bytes, wanted.length)
      assert.equal(Buffer.compare(into.subarray(0, bytes), wanted), 0)
      return true
    },
  }
})

fuzz('keys and bucket names in a path are decoded or refused with their code', () => {
  const decoder = new KeyDecoder()
  return {
    inputs: inputsOf(['user:42', 'a%2Fb', 'default', 'my-bucket.v1_2', 'dXNlcjo0Mg', '_w', 'A'.repeat(300), 'b%2Eb']),
    words: ['%', '%61', '-', '_', '==', '/', 'x'.repeat(130), '..', '%2e', 'A'.repeat(2000)],
    look: (input) => {
      const text = textOf(input)
      const key = parsed(['BAD_KEY'], () => decoder.decode(text, 0, text.length))
      const wanted = decodedByTheBook(text)
      const isKey = wanted !== undefined && wanted.length >= 1 && wanted.length <= Limits.keyBytesMax
      assert.equal(key !== undefined, isKey)
      if (isKey) assert.equal(Buffer.compare(key!, wanted), 0)
      const key64 = parsed(['BAD_KEY'], () => decoder.decode64(text, 0, text.length))
      if (key64 !== undefined) {
        assert.ok(key64.length >= 1 && key64.length <= Limits.keyBytesMax)
        assert.equal(Buffer.from(wanted!).toString('latin1'), Buffer.from(key64).toString('base64url'))
      }
      const name = parsed(['BAD_BUCKET'], () => bucketNameOf(text))
      if (name !== undefined) assert.match(name, /^[A-Za-z0-9._-]{1,128}$/)
      assert.equal(isBucketName(text), /^[A-Za-z0-9._-]{1,128}$/.test(text))
      return key !== undefined
    },
  }
})

const queryNames: readonly QueryName[] = [
  'r',
  'w',
  'ttl',
  'timeout',
  'siblings',
  'key64',
  'durability',
  'prefix',
  'prefix64',
  'limit',
  'cursor',
  'values',
]
const queryCodes = ['BAD_REQUEST', 'BAD_QUORUM', 'BAD_TTL', 'BAD_TIMEOUT', 'BAD_KEY', 'BAD_CURSOR']

fuzz('a query has only values within their limits, or is refused with a code', () => ({
  inputs: inputsOf([
    'r=1&w=quorum&timeout=500ms',
    'ttl=30s&durability=os&key64=1',
    'prefix=a%20b&limit=10&cursor=_w&values=1',
    'prefix64=_w&siblings=all',
    'ttl=none',
    '',
  ]),
  words: [
    '&',
    '=',
    '%',
    '+',
    'r=',
    'ttl=',
    'limit=',
    '&&',
    '36500d',
    '999999999',
    '-1',
    '1e3',
    'none',
    'all',
    '__proto__',
  ],
  bytesMax: 300,
  look: (input) => {
    const target = `/v1/kv/b?${textOf(input)}`
    const query = parsed(queryCodes, () => parseQuery(target, 8, queryNames))
    if (query === undefined) return false
    const { r, w, ttlMs, timeoutMs, limit, prefix } = query
    for (const level of [r, w]) {
      assert.ok(level === undefined || typeof level === 'string' || (Number.isInteger(level) && level >= 1))
    }
    assert.ok(ttlMs === undefined || ttlMs === Number.POSITIVE_INFINITY || (ttlMs > 0 && ttlMs <= Limits.ttlMsMax))
    assert.ok(timeoutMs === undefined || (timeoutMs > 0 && timeoutMs <= Limits.timeoutMsMax))
    assert.ok(limit === undefined || (limit >= 1 && limit <= Limits.listLimitMax))
    assert.ok(prefix === undefined || prefix.length <= Limits.keyBytesMax)
    return input.length > 0
  },
}))

fuzz('entity tags, contexts and content types are read as they stand, or refused with a code', () => ({
  inputs: inputsOf([
    '"0123456789abcdef"',
    'W/"a", "b" ,"c"',
    '*',
    'AQwAAQAAAAAAAQ',
    'text/plain; charset=utf-8',
    'application/x-ndjson;q=0.5, */*',
  ]),
  words: ['"', ',', 'W/', '*', ' ', '\t', ';', 'q=0', '\\', '\x7f', 'application/x-ndjson'],
  bytesMax: 200,
  look: (input) => {
    const text = textOf(input)
    const tags = parsed(['BAD_REQUEST'], () => parseEntityTags('If-Match', text))
    if (tags !== undefined && tags !== '*') {
      assert.ok(tags.length > 0)
      for (const { tag, weak } of tags) assert.ok(text.includes(`${weak ? 'W/' : ''}"${tag}"`) && !tag.includes('"'))
      assert.deepEqual(
        strongTagsOf(text),
        tags.filter(({ weak }) => !weak).map(({ tag }) => tag),
      )
    }
    const context = parsed(['BAD_CONTEXT'], () => parseContext(text))
    if (context !== undefined) assert.equal(Buffer.from(context).toString('base64url'), text)
    const type = parsed(['BAD_REQUEST'], () => checkContentType(text))
    if (type !== undefined) assert.ok(type === text && /^[ -~]+$/.test(type))
    assert.ok(!/[;\s]$/.test(mediaTypeOf(text)))
    if (acceptsLines(text)) assert.ok(text.toLowerCase().includes('application/x-ndjson'))
    return tags !== undefined
  },
}))

fuzz('of header fields none is lost, and none that must be single is given twice unseen', () => {
  const names = ['Host', 'Origin', 'Content-Type', 'Content-Length', 'Sunwise-Context', 'If-Match', 'Accept', 'X-Other']
  return {
    inputs: [Uint8Array.of(0, 1, 2), Uint8Array.of(0, 5, 5, 6), Uint8Array.of(7, 4, 3, 2), Uint8Array.of(1)],
    bytesMax: 12,
    look: (input) => {
      const raw: string[] = []
      const counts = new Array<number>(names.length).fill(0)
      for (const byte of input) {
        const name = names[byte & 7]!
        counts[byte & 7]!++
        raw.push(byte & 8 ? name.toUpperCase() : byte & 16 ? name.toLowerCase() : name, `value${byte}`)
      }
      const fields = new RequestFields(raw)
      const isRepeated = counts.slice(0, 5).some((count) => count > 1)
      assert.equal(fields.repeated !== undefined, isRepeated)
      for (const [index, value] of [
        fields.host,
        fields.origin,
        fields.contentType,
        fields.contentLength,
        fields.context,
      ].entries()) {
        assert.equal(value !== undefined, counts[index]! > 0)
      }
      assert.equal(fields.ifMatch?.split(', ').length ?? 0, counts[5])
      assert.equal(fields.accept?.split(', ').length ?? 0, counts[6])
      return !isRepeated
    },
  }
})

fuzz('a Host field is allowed only if it is a name of the node, with or without a port', () => {
  const hosts = new HostList(['node.example', '10.0.0.7'])
  return {
    inputs: inputsOf([
      'localhost',
      'localhost:7070',
      '127.0.0.1:80',
      '[::1]',
      '[::1]:7070',
      'node.example:443',
      '10.0.0.7',
    ]),
    words: [':', '[', ']', '.', '%', '@', ' ', '%25eth0', '.evil', ':99999', 'evil.example'],
    bytesMax: 60,
    look: (input) => {
      const text = textOf(input)
      if (!hosts.allows(text)) return false
      // Brackets hold an address, behind which a zone may stand.
      assert.match(text, /^(?:localhost|127\.0\.0\.1|node\.example|10\.0\.0\.7|\[::1(?:%[^\]]*)?\])(?::\d{1,5})?$/i)
      return true
    },
  }
})

fuzz('base64 of either kind is the only spelling of its bytes', () => ({
  inputs: inputsOf(['', 'YQ==', 'YWI=', 'YWJj', 'YQ', 'YWI', '-_-_', '+/+/', 'AAAAAAAAAAAAAAAA']),
  words: ['=', '==', '-', '_', '+', '/', ' ', '\n', '\xff'],
  bytesMax: 40,
  look: (input) => {
    const text = textOf(input)
    const url = decodeBase64Url(text)
    if (url !== undefined) {
      assert.match(text, /^[A-Za-z0-9_-]*$/)
      assert.equal(url.length, Math.floor((text.length * 3) / 4))
    }
    const padded = decodeBase64(text)
    if (padded !== undefined) assert.match(text, /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/)
    return url !== undefined || padded !== undefined
  },
}))

fuzz('durations, sizes and addresses are what they say, or refused', () => ({
  inputs: inputsOf([
    '1500',
    '000000000001500',
    '250ms',
    '30s',
    '5m',
    '2h',
    '7d',
    '512mb',
    '1.5GiB',
    '127.0.0.1:80',
    '[::1]:7070',
    ':0',
    'host',
  ]),
  words: ['0', '9', '.', 'e', '-', ' ', 'ms', 'constructor', '__proto__', ':', '[', '65536', 'KB', '٣'],
  bytesMax: 30,
  look: (input) => {
    const text = textOf(input)
    const durationMs = parseDurationMs(text, Limits.ttlMsMax)
    if (durationMs !== undefined) {
      assert.match(text, /^\d{1,15}(?:ms|s|m|h|d)?$/)
      assert.ok(durationMs > 0 && durationMs <= Limits.ttlMsMax && Number.isInteger(durationMs))
    }
    for (const quantity of [parseBytes(text), parseDurationOfPeople(text)]) {
      if (quantity === undefined) continue
      assert.match(text, /^\d+(?:\.\d+)? ?[a-z]{0,3}$/i)
      assert.ok(Number.isSafeInteger(quantity) && quantity >= 0)
    }
    const address = parseAddress(text, 7070)
    if (address !== undefined) {
      assert.ok(address.port >= 0 && address.port <= 65535 && address.host.length > 0)
      assert.deepEqual(parseAddress(formatAddress(address), 1), address)
    }
    return durationMs !== undefined || address !== undefined
  },
}))
