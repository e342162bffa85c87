import assert from 'node:assert/strict'
import { test } from 'node:test'
import { optionNameOf } from '../../src/cli/program.ts'
import { resolveSettings, type SettingName, type SettingSources, SettingTable } from '../../src/cli/settings.ts'

const resolve = (sources: Partial<SettingSources>) => resolveSettings({ flags: {}, environment: {}, ...sources })
const fileOf = (content: unknown) => ({ path: 'sunwise.json', content })

/** A text that each setting accepts and that is not its default, and what it means. */
const samples: { readonly [Name in SettingName]: readonly [string, unknown] } = {
  dataDir: ['/data', '/data'],
  http: ['0.0.0.0:81', { host: '0.0.0.0', port: 81 }],
  peer: ['0.0.0.0:82', { host: '0.0.0.0', port: 82 }],
  advertise: ['node.example:82', 'node.example:82'],
  join: ['a.example:82, [::1]:82', ['a.example:82', '[::1]:82']],
  zone: ['rack-1', 'rack-1'],
  replaces: ['0123456789abcdef', '0123456789abcdef'],
  shards: ['3', 3],
  memory: ['512mb', 512 * 1024 ** 2],
  durability: ['os', 'os'],
  syncInterval: ['1s', 1000],
  valueMax: ['16mb', 16 * 1024 ** 2],
  compression: ['zstd', 'zstd'],
  scrubRate: ['8mb', 8 * 1024 ** 2],
  insecure: ['true', true],
  allowedHosts: ['a.example, b', ['a.example', 'b']],
  salvage: ['1', true],
  drainTimeout: ['2s', 2000],
  endpoint: ['localhost:81', new URL('http://localhost:81/')],
  bucket: ['carts', 'carts'],
  timeout: ['10m', 600_000],
  output: ['json', 'json'],
}
const names = Object.keys(SettingTable) as SettingName[]

test('Settings: every one can come from flag, environment and file, in this order of precedence', () => {
  for (const name of names) {
    const [text, value] = samples[name]
    const { env, fallback } = SettingTable[name]
    const other = fallback ?? '/other'
    const cases: [Partial<SettingSources>, string, unknown][] = [
      [{ flags: { [name]: text }, environment: { [env]: other }, file: fileOf({ [name]: other }) }, 'flag', value],
      [
        { environment: { [env]: text }, file: fileOf({ [name]: other }) },
        other === '' ? 'environment' : 'environment',
        value,
      ],
      [{ environment: { [env]: '' }, file: fileOf({ [name]: text }) }, 'file', value],
      [{ fallbacks: { [name]: text } }, 'default', value],
    ]
    for (const [sources, origin, expected] of cases) {
      const resolved = resolve(sources)
      assert.deepEqual(resolved.values[name], expected, `${name} from ${origin}`)
      assert.equal(resolved.origins[name], origin, name)
    }
  }
})

test('Settings: every default passes its own check', () => {
  const { values, origins } = resolve({})
  for (const name of names) {
    assert.equal(values[name] === undefined, SettingTable[name].fallback === undefined, name)
    assert.equal(origins[name], 'default')
  }
  assert.deepEqual(values.http, { host: '127.0.0.1', port: 7070 })
  assert.deepEqual([values.memory, values.durability, values.shards], [1024 ** 3, 'sync', 0])
})

test('Settings: flags, variables and keys are named alike', () => {
  for (const name of names) {
    const { flag, env } = SettingTable[name]
    assert.equal(optionNameOf(flag), name)
    assert.equal(env, `SUNWISE_${flag.slice(2).replaceAll('-', '_').toUpperCase()}`)
  }
})

test('Settings: a file may give numbers and truth values as such', () => {
  const { values } = resolve({ file: fileOf({ shards: 4, memory: 1024 ** 3, insecure: true, syncInterval: 50 }) })
  assert.deepEqual([values.shards, values.memory, values.insecure, values.syncInterval], [4, 1024 ** 3, true, 50])
})

test('Settings: a bad value names its source, itself and what was expected', () => {
  const bad: [Partial<SettingSources>, RegExp][] = [
    [{ flags: { memory: 'lots' } }, /^--memory is "lots"; expected a size/],
    [{ flags: { memory: '1kb' } }, /expected a size of at least 16mb/],
    [{ environment: { SUNWISE_SHARDS: '65' } }, /^SUNWISE_SHARDS is "65"; expected a number from 0 to 64/],
    [
      { file: fileOf({ durability: 'always' }) },
      /^"durability" in sunwise.json is "always"; expected sync, interval or os/,
    ],
    [{ file: fileOf({ shards: [1] }) }, /"shards" in sunwise.json is \[1\]/],
    [{ file: fileOf({ shards: null }) }, /is null/],
    [{ flags: { http: 'x:99999' } }, /--http is "x:99999"/],
    [{ flags: { endpoint: 'http://u:p@x/' } }, /--endpoint/],
    [{ flags: { endpoint: 'http://x/path' } }, /--endpoint/],
    [{ flags: { bucket: 'a/b' } }, /--bucket/],
    [{ flags: { valueMax: '17mb' } }, /--value-max/],
    [{ flags: { timeout: '0' } }, /--timeout/],
    [{ flags: { syncInterval: '61s' } }, /--sync-interval/],
    [{ flags: { allowedHosts: 'a,,b' } }, /--allowed-hosts/],
    [{ flags: { dataDir: 'a\0b' } }, /--data-dir/],
    [{ environment: { SUNWISE_INSECURE: 'yes' } }, /expected true or false/],
  ]
  for (const [sources, message] of bad) assert.throws(() => resolve(sources), { code: 'BAD_CONFIG', message })
})

test('Settings: an unknown name is an error with a suggestion, wherever it stands', () => {
  assert.throws(() => resolve({ environment: { SUNWISE_DURABILTY: 'sync' } }), {
    message: 'Unknown environment variable SUNWISE_DURABILTY (did you mean SUNWISE_DURABILITY?)',
  })
  assert.throws(() => resolve({ file: fileOf({ memroy: '1gb' }) }), {
    message: 'Unknown key "memroy" in sunwise.json (did you mean memory?)',
  })
  assert.throws(() => resolve({ file: fileOf({ ['__proto__x']: 1 }) }), /Unknown key/)
  assert.throws(() => resolve({ file: fileOf(JSON.parse('{"__proto__":1}')) }), /Unknown key "__proto__"/)
  for (const content of [[], null, 'text', 7])
    assert.throws(() => resolve({ file: fileOf(content) }), /one JSON object/)
})

test('Settings: variables that platforms and tests set are not ours', () => {
  const environment = {
    SUNWISE_SERVICE_HOST: '10.0.0.1',
    SUNWISE_SERVICE_PORT: '7070',
    SUNWISE_SERVICE_PORT_HTTP: '7070',
    SUNWISE_PORT: 'tcp://10.0.0.1:7070',
    SUNWISE_PORT_7070_TCP: 'tcp://10.0.0.1:7070',
    SUNWISE_PORT_7070_TCP_ADDR: '10.0.0.1',
    SUNWISE_PEERS_PORT_7071_TCP_PROTO: 'tcp',
    SUNWISE_TEST_SCALE: '10',
    PATH: '/bin',
  }
  assert.equal(resolve({ environment }).values.bucket, 'default')
})
