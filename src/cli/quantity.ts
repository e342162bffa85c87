/**
 * Quantities as people type and read them: sizes (`512mb`, `1gb`), durations (`250ms`, `30s`, `7d`) and addresses
 * (`127.0.0.1:7070`, `[::1]:7070`, `:7070`). Parsers are strict and never clamp: what they do not fully understand is
 * undefined, and the caller says which option it was.
 */
import { isIPv6 } from 'node:net'

/** Powers of 1024, as Redis, PostgreSQL and the JVM read the same letters. */
const BYTES_PER_UNIT: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1024,
  kb: 1024,
  kib: 1024,
  m: 1024 ** 2,
  mb: 1024 ** 2,
  mib: 1024 ** 2,
  g: 1024 ** 3,
  gb: 1024 ** 3,
  gib: 1024 ** 3,
  t: 1024 ** 4,
  tb: 1024 ** 4,
  tib: 1024 ** 4,
}

const MS_PER_UNIT: Readonly<Record<string, number>> = {
  '': 1,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

function parseWithUnit(text: string, perUnit: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d{1,16}(?:\.\d{1,9})?) ?([a-z]{0,3})$/i.exec(text)
  if (match === null) return undefined
  const unit = match[2]!.toLowerCase()
  if (!Object.hasOwn(perUnit, unit)) return undefined
  const amount = Number(match[1]) * perUnit[unit]!
  return Number.isSafeInteger(amount) ? amount : undefined
}

/** Bytes of a size such as `1048576`, `512mb` or `1.5GiB` (units are powers of 1024); undefined if it is not one. */
export function parseBytes(text: string): number | undefined {
  return parseWithUnit(text, BYTES_PER_UNIT)
}

/** Milliseconds of a duration such as `1500`, `250ms`, `30s`, `5m`, `2h` or `7d`; undefined if it is not one. */
export function parseDurationMs(text: string): number | undefined {
  return parseWithUnit(text, MS_PER_UNIT)
}

/** Where a server listens. `host` is without brackets. */
export type Address = { readonly host: string; readonly port: number }

/**
 * Host and port of `host:port`, `[ipv6]:port`, `:port` or `port` (both on 127.0.0.1) or `host` (on `portDefault`);
 * undefined if it is none of these. Port 0 asks for any free port.
 */
export function parseAddress(text: string, portDefault: number): Address | undefined {
  const match =
    /^\[([0-9a-fA-F:.]+)\](?::(\d{1,5}))?$/.exec(text) ??
    /^([A-Za-z0-9._-]*[A-Za-z._-][A-Za-z0-9._-]*|\d+\.\d+\.\d+\.\d+)?(?::(\d{1,5}))?$/.exec(text) ??
    /^()(\d{1,5})$/.exec(text)
  if (match === null || text === '' || text === ':') return undefined
  if (text.startsWith('[') && !isIPv6(match[1]!)) return undefined
  const port = match[2] === undefined ? portDefault : Number(match[2])
  return port > 65535 ? undefined : { host: match[1] || '127.0.0.1', port }
}

/** `host:port`, with brackets around an IPv6 address. */
export function formatAddress(address: Address): string {
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`
}

/** Bytes for people: `512 B`, `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  let amount = bytes
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024
    unit++
  }
  return `${unit === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${units[unit]}`
}

/** A duration for people: `0.4s`, `42s`, `2m10s`, `3h05m`. */
export function formatDuration(ms: number): string {
  if (!Number.isFinite(ms)) return '-'
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)}s`
  const seconds = Math.round(ms / 1000)
  if (seconds < 60) return `${seconds}s`
  const pad = (amount: number): string => String(amount).padStart(2, '0')
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${pad(seconds % 60)}s`
  return `${Math.floor(seconds / 3600)}h${pad(Math.floor((seconds % 3600) / 60))}m`
}

/** An integer with thousands separated: `1,234,567`. */
export function formatCount(count: number): string {
  return Math.round(count)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ',')
}
