/**
 * The one table of settings: for each its flag, environment variable, key in the configuration file, check, default and
 * explanation. Everything that speaks of a setting (parser, `--help`, errors, documentation tests) is drawn from it.
 *
 * Precedence: flag > environment > file > default. A name that no row has, wherever it stands, is an error with a
 * suggestion and never ignored: a misspelt `SUNWISE_DURABILTY` must not quietly mean the default.
 */
import { SunwiseError } from '../base/errors.ts'
import type { Compression, Durability } from '../config.ts'
import { ConfigDefaults, Limits } from '../config.ts'
import { parsePeerAddress } from '../host/peer/peer-address.ts'
import type { Address } from './quantity.ts'
import { parseAddress, parseBytes, parseDurationMs } from './quantity.ts'
import { suggestionFor } from './suggestion.ts'

/** How the command line prints its results. */
export type OutputFormat = 'text' | 'json'

/** The checked value of every setting. */
export type SettingValues = {
  readonly dataDir: string
  readonly http: Address
  readonly peer: Address
  readonly advertise: string
  readonly join: readonly string[]
  readonly zone: string
  readonly replaces: string
  readonly shards: number
  readonly memory: number
  readonly durability: Durability
  readonly syncInterval: number
  readonly valueMax: number
  readonly compression: Compression
  readonly scrubRate: number
  readonly insecure: boolean
  readonly allowedHosts: readonly string[]
  readonly salvage: boolean
  readonly drainTimeout: number
  readonly endpoint: URL
  readonly bucket: string
  readonly timeout: number
  readonly output: OutputFormat
}

/** The name of a setting; also its key in the configuration file. */
export type SettingName = keyof SettingValues

/** One row of the table. `parse` gets text as typed and returns the value, or undefined if the text is not one. */
export type Setting<Value> = {
  readonly flag: string
  readonly short?: string
  /** What stands after the flag; undefined for a flag that is its own value. */
  readonly argument: string | undefined
  readonly env: `SUNWISE_${string}`
  readonly help: string
  /** What `parse` accepts, for the error. */
  readonly expected: string
  /** The default as one would type it; undefined where there is none. */
  readonly fallback: string | undefined
  readonly parse: (text: string) => Value | undefined
}

const oneOf =
  <Choice extends string>(...choices: readonly Choice[]) =>
  (text: string): Choice | undefined =>
    choices.find((choice) => choice === text)

const between =
  (min: number, max: number, parse: (text: string) => number | undefined) =>
  (text: string): number | undefined => {
    const value = parse(text)
    return value !== undefined && value >= min && value <= max ? value : undefined
  }

const parseInteger = (text: string): number | undefined => (/^\d{1,15}$/.test(text) ? Number(text) : undefined)

function parseBoolean(text: string): boolean | undefined {
  return text === 'true' || text === '1' ? true : text === 'false' || text === '0' ? false : undefined
}

function parseHosts(text: string): readonly string[] | undefined {
  const names = text.split(',').map((name) => name.trim())
  if (text.trim() === '') return []
  return names.every((name) => /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)$/.test(name)) ? names : undefined
}

function parseAddresses(text: string): readonly string[] | undefined {
  if (text.trim() === '') return []
  const addresses = text.split(',').map((address) => address.trim())
  return addresses.every((address) => parsePeerAddress(address) !== undefined) ? addresses : undefined
}

function parseEndpoint(text: string): URL | undefined {
  const url = URL.parse(/^https?:\/\//.test(text) ? text : `http://${text}`)
  if (url === null || url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '')
    return undefined
  return url.pathname === '/' && url.hostname !== '' ? url : undefined
}

/** Every setting there is. */
export const SettingTable: { readonly [Name in SettingName]: Setting<SettingValues[Name]> } = {
  dataDir: {
    flag: '--data-dir',
    argument: '<directory>',
    env: 'SUNWISE_DATA_DIR',
    help: 'data directory; made if it does not exist',
    expected: 'the path of a directory',
    fallback: undefined,
    parse: (text) => (text === '' || text.includes('\0') ? undefined : text),
  },
  http: {
    flag: '--http',
    argument: '<host:port>',
    env: 'SUNWISE_HTTP',
    help: 'address to serve HTTP on; port 0 takes a free one',
    expected: 'host:port, with a port from 0 to 65535',
    fallback: '127.0.0.1:7070',
    parse: (text) => parseAddress(text, 7070),
  },
  peer: {
    flag: '--peer',
    argument: '<host:port>',
    env: 'SUNWISE_PEER',
    help: 'be a member of a cluster, and take what other nodes say on this address',
    expected: 'host:port, with a port from 0 to 65535',
    fallback: undefined,
    parse: (text) => parseAddress(text, 7071),
  },
  advertise: {
    flag: '--advertise',
    argument: '<host:port>',
    env: 'SUNWISE_ADVERTISE',
    help: 'where other nodes reach this one, if that is not --peer',
    expected: 'host:port',
    fallback: '',
    parse: (text) => (text === '' || parsePeerAddress(text) !== undefined ? text : undefined),
  },
  join: {
    flag: '--join',
    argument: '<addresses>',
    env: 'SUNWISE_JOIN',
    help: 'join the cluster of these nodes, by their --peer addresses, parted by commas; without it a new cluster begins',
    expected: 'host:port, more than one parted by commas',
    fallback: '',
    parse: parseAddresses,
  },
  zone: {
    flag: '--zone',
    argument: '<name>',
    env: 'SUNWISE_ZONE',
    help: 'what fails together with this node, such as a rack: replicas of a key are put into different zones',
    expected: `up to ${Limits.zoneBytesMax} letters, digits, dots, dashes or underscores`,
    fallback: '',
    parse: (text) => (/^[A-Za-z0-9._-]*$/.test(text) && text.length <= Limits.zoneBytesMax ? text : undefined),
  },
  replaces: {
    flag: '--replaces',
    argument: '<node>',
    env: 'SUNWISE_REPLACES',
    help: 'id of a member that will not come back: with --join, take its place in the cluster',
    expected: 'sixteen hexadecimal digits',
    fallback: '',
    parse: (text) => (/^([0-9a-f]{16})?$/.test(text) ? text : undefined),
  },
  shards: {
    flag: '--shards',
    argument: '<count>',
    env: 'SUNWISE_SHARDS',
    help: 'worker threads; 0 takes one per core. May differ at each start',
    expected: `a number from 0 to ${Limits.shardsMax}`,
    fallback: String(ConfigDefaults.shards),
    parse: between(0, Limits.shardsMax, parseInteger),
  },
  memory: {
    flag: '--memory',
    argument: '<size>',
    env: 'SUNWISE_MEMORY',
    help: 'budget for tables in memory, caches and queues together',
    expected: 'a size of at least 16mb such as 512mb or 1gb',
    fallback: '1gb',
    parse: between(16 * 1024 ** 2, Number.MAX_SAFE_INTEGER, parseBytes),
  },
  durability: {
    flag: '--durability',
    argument: '<level>',
    env: 'SUNWISE_DURABILITY',
    help: 'a write is acknowledged when it is on stable storage (sync), or with the kernel (interval, os)',
    expected: 'sync, interval or os',
    fallback: ConfigDefaults.durability,
    parse: oneOf('sync', 'interval', 'os'),
  },
  syncInterval: {
    flag: '--sync-interval',
    argument: '<duration>',
    env: 'SUNWISE_SYNC_INTERVAL',
    help: 'how often --durability interval syncs',
    expected: 'a duration from 1ms to 1m such as 100ms',
    fallback: `${ConfigDefaults.syncIntervalMs}ms`,
    parse: between(1, 60_000, parseDurationMs),
  },
  valueMax: {
    flag: '--value-max',
    argument: '<size>',
    env: 'SUNWISE_VALUE_MAX',
    help: 'largest value that is accepted',
    expected: 'a size from 1b to 16mb',
    fallback: '1mb',
    parse: between(1, Limits.valueBytesMax, parseBytes),
  },
  compression: {
    flag: '--compression',
    argument: '<kind>',
    env: 'SUNWISE_COMPRESSION',
    help: 'how data beyond memory stands on disk: zstd takes less room there, and reads of it take longer',
    expected: 'none or zstd',
    fallback: ConfigDefaults.compression,
    parse: oneOf('none', 'zstd'),
  },
  scrubRate: {
    flag: '--scrub-rate',
    argument: '<size>',
    env: 'SUNWISE_SCRUB_RATE',
    help: 'how much of the tables is looked through for damage in a second; 0 for none',
    expected: 'a size from 0 to 1gb',
    fallback: '4mb',
    parse: between(0, 1024 ** 3, parseBytes),
  },
  insecure: {
    flag: '--insecure',
    argument: undefined,
    env: 'SUNWISE_INSECURE',
    help: 'allow an address other than loopback although anybody there can read and write everything',
    expected: 'true or false',
    fallback: 'false',
    parse: parseBoolean,
  },
  allowedHosts: {
    flag: '--allowed-hosts',
    argument: '<names>',
    env: 'SUNWISE_ALLOWED_HOSTS',
    help: 'names, parted by commas, by which clients may call this server beside localhost and its address',
    expected: 'host names parted by commas',
    fallback: '',
    parse: parseHosts,
  },
  salvage: {
    flag: '--salvage',
    argument: undefined,
    env: 'SUNWISE_SALVAGE',
    help: 'keep what is readable of a damaged log instead of refusing to start',
    expected: 'true or false',
    fallback: 'false',
    parse: parseBoolean,
  },
  drainTimeout: {
    flag: '--drain-timeout',
    argument: '<duration>',
    env: 'SUNWISE_DRAIN_TIMEOUT',
    help: 'how long requests under way may take when the server is told to stop',
    expected: 'a duration up to 1h such as 10s',
    fallback: '10s',
    parse: between(0, 3_600_000, parseDurationMs),
  },
  endpoint: {
    flag: '--endpoint',
    argument: '<url>',
    env: 'SUNWISE_ENDPOINT',
    help: 'server to talk to',
    expected: 'a URL such as http://127.0.0.1:7070',
    fallback: 'http://127.0.0.1:7070',
    parse: parseEndpoint,
  },
  bucket: {
    flag: '--bucket',
    short: '-b',
    argument: '<name>',
    env: 'SUNWISE_BUCKET',
    help: 'bucket of the keys',
    expected: `1 to ${Limits.bucketNameBytesMax} letters, digits, dots, dashes or underscores`,
    fallback: 'default',
    parse: (text) => (/^[A-Za-z0-9._-]+$/.test(text) && text.length <= Limits.bucketNameBytesMax ? text : undefined),
  },
  timeout: {
    flag: '--timeout',
    argument: '<duration>',
    env: 'SUNWISE_TIMEOUT',
    help: 'deadline of each request',
    expected: 'a duration from 1ms to 10m such as 5s',
    fallback: `${Limits.timeoutMsDefault / 1000}s`,
    parse: between(1, Limits.timeoutMsMax, parseDurationMs),
  },
  output: {
    flag: '--output',
    short: '-o',
    argument: '<format>',
    env: 'SUNWISE_OUTPUT',
    help: 'how to print results: text or json',
    expected: 'text or json',
    fallback: 'text',
    parse: oneOf('text', 'json'),
  },
}

const settingNames = Object.keys(SettingTable) as SettingName[]

/** The variable that names the configuration file; a setting of settings, so it stands outside the table. */
export const CONFIG_VARIABLE = 'SUNWISE_CONFIG'

/**
 * Variables that others set and that look like ours: container platforms inject `<SERVICE>_PORT...` and
 * `<SERVICE>_SERVICE_...` for a service that happens to be called sunwise, and the tests scale by `SUNWISE_TEST_...`.
 */
const foreignVariable =
  /^SUNWISE_(TEST_\w+|(\w+_)?SERVICE_(HOST|PORT)(_\w+)?|(\w+_)?PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$/

/** Where the text of each setting may come from. */
export type SettingSources = {
  /** Values of flags by setting name, as typed; `true` for a bare flag. */
  readonly flags: Readonly<Record<string, unknown>>
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Parsed JSON of the configuration file, with its path for messages; undefined where there is none. */
  readonly file?: { readonly path: string; readonly content: unknown } | undefined
  /** Defaults of this command where it differs from the table. */
  readonly fallbacks?: Partial<Record<SettingName, string>>
}

/** Which source a value came from. */
export type SettingOrigin = 'flag' | 'environment' | 'file' | 'default'

/** Values of all settings; undefined only where a setting has no default and nobody gave it. */
export type ResolvedSettings = {
  readonly values: Partial<SettingValues> & Omit<SettingValues, 'dataDir' | 'peer'>
  readonly origins: Readonly<Record<SettingName, SettingOrigin>>
}

function textOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined
}

function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

function checkNames(sources: SettingSources): Readonly<Record<string, unknown>> {
  const variables: string[] = [CONFIG_VARIABLE, ...settingNames.map((name) => SettingTable[name].env)]
  for (const variable of Object.keys(sources.environment)) {
    if (!variable.startsWith('SUNWISE_') || variables.includes(variable) || foreignVariable.test(variable)) continue
    const suggestion = suggestionFor(variable, variables)
    throw new SunwiseError('BAD_CONFIG', `Unknown environment variable ${variable}${suggestion}`)
  }
  if (sources.file === undefined) return {}
  const { path, content } = sources.file
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw new SunwiseError('BAD_CONFIG', `${path} must hold one JSON object`)
  }
  for (const key of Object.keys(content)) {
    if (Object.hasOwn(SettingTable, key)) continue
    throw new SunwiseError('BAD_CONFIG', `Unknown key ${quoted(key)} in ${path}${suggestionFor(key, settingNames)}`)
  }
  return content as Record<string, unknown>
}

/**
 * Settles every setting. @throws SunwiseError `BAD_CONFIG` naming the source, the value and what was expected, or the
 * unknown name and the closest known one.
 */
export function resolveSettings(sources: SettingSources): ResolvedSettings {
  const file = checkNames(sources)
  const values: Record<string, unknown> = {}
  const origins = {} as Record<SettingName, SettingOrigin>
  for (const name of settingNames) {
    const setting = SettingTable[name]
    const candidates: [SettingOrigin, string, unknown][] = [
      ['flag', setting.flag, sources.flags[name]],
      ['environment', setting.env, sources.environment[setting.env]],
      ['file', `"${name}" in ${sources.file?.path}`, Object.hasOwn(file, name) ? file[name] : undefined],
      ['default', `default of ${setting.flag}`, sources.fallbacks?.[name] ?? setting.fallback],
    ]
    // An empty variable means unset: that is all a shell or a compose file can do to take one back.
    const found = candidates.find(([origin, , raw]) => raw !== undefined && !(origin === 'environment' && raw === ''))
    origins[name] = found?.[0] ?? 'default'
    if (found === undefined) continue
    const text = textOf(found[2])
    const value = text === undefined ? undefined : setting.parse(text)
    if (value === undefined) {
      throw new SunwiseError('BAD_CONFIG', `${found[1]} is ${quoted(found[2])}; expected ${setting.expected}`)
    }
    values[name] = value
  }
  return { values: values as ResolvedSettings['values'], origins }
}
