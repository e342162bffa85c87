/**
 * Addresses: which may be bound, which names a request may call the node by, and the exclusive first bind.
 *
 * A node without authentication binds loopback only. Even there a web page can reach it by pointing a name of its own at
 * 127.0.0.1 (DNS rebinding), so requests whose Host is not a known name of the node are refused.
 */
import { createServer, isIPv4, isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { SunwiseError } from '../../base/errors.ts'

/** An address without brackets, zone or case, for comparison. */
function normalAddress(host: string): string {
  const bare = host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
  const zone = bare.indexOf('%')
  return (zone === -1 ? bare : bare.slice(0, zone)).toLowerCase()
}

/** Whether a host to bind is reachable from this machine only. */
export function isLoopback(host: string): boolean {
  const address = normalAddress(host)
  if (address === 'localhost' || address === '::1') return true
  const mapped = address.startsWith('::ffff:') ? address.slice(7) : address
  return isIPv4(mapped) && mapped.startsWith('127.')
}

/** @throws SunwiseError `ADDRESS_REFUSED` for an address that others can reach, unless the operator insists */
export function checkBindAddress(host: string, insecure: boolean): void {
  if (insecure || isLoopback(host)) return
  throw new SunwiseError(
    'ADDRESS_REFUSED',
    `${host} is not a loopback address and the server has no authentication; bind 127.0.0.1 or give --insecure`,
  )
}

/** The error for a failed bind of `host:port`. */
export function bindErrorOf(host: string, port: number, error: NodeJS.ErrnoException): SunwiseError {
  if (error.code === 'EADDRINUSE') {
    return new SunwiseError('ADDRESS_IN_USE', `${host}:${port} is in use by another process`, { cause: error })
  }
  return new SunwiseError('BAD_CONFIG', `${host}:${port} cannot be bound: ${error.code ?? 'unknown reason'}`, {
    cause: error,
  })
}

/**
 * Binds `host:port` alone, gives the port back (for port 0 the one the system chose) and lets go. A second process with
 * `reusePort` would otherwise silently take half of the first one's requests: probe first, then let workers share the port.
 * Rejects with `ADDRESS_IN_USE`, `ADDRESS_REFUSED` or `BAD_CONFIG`.
 */
export function probeBind(host: string, port: number, insecure = false): Promise<number> {
  return new Promise((resolve, reject) => {
    checkBindAddress(host, insecure)
    const server = createServer()
    server.once('error', (error) => reject(bindErrorOf(host, port, error)))
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address()
      const bound = typeof address === 'object' && address !== null ? address.port : port
      server.close(() => resolve(bound))
    })
  })
}

/** The names and addresses by which requests may call a node, with any port. */
export class HostList {
  readonly #names = new Set(['localhost', '127.0.0.1', '::1'])
  /** The last field that passed: most requests of a connection repeat it. */
  #latest = ''

  constructor(names: readonly string[]) {
    for (const name of names) this.#names.add(normalAddress(name))
  }

  /** Adds the address that was bound; a wildcard stands for all addresses of the machine's interfaces. */
  addBound(address: string): void {
    const normal = normalAddress(address)
    this.#names.add(normal)
    if (normal !== '0.0.0.0' && normal !== '::') return
    for (const addresses of Object.values(networkInterfaces())) {
      for (const entry of addresses ?? []) this.#names.add(normalAddress(entry.address))
    }
  }

  /** Whether a Host field names the node. */
  allows(host: string | undefined): boolean {
    if (host === undefined || host.length === 0) return false
    if (host === this.#latest) return true
    const name = hostNameOf(host)
    if (name === undefined || !this.#names.has(name)) return false
    this.#latest = host
    return true
  }
}

/** The name in a Host field, without its port; undefined where the field is malformed. */
function hostNameOf(host: string): string | undefined {
  const bracket = host.startsWith('[') ? host.indexOf(']') : -1
  if (host.startsWith('[') && bracket === -1) return undefined
  const colon = bracket === -1 ? host.indexOf(':') : host.indexOf(':', bracket)
  const name = colon === -1 ? host : host.slice(0, colon)
  if (colon !== -1) {
    const port = host.slice(colon + 1)
    if (port.length === 0 || port.length > 5 || !/^[0-9]+$/.test(port)) return undefined
  } else if (bracket !== -1 && bracket !== host.length - 1) return undefined
  if (bracket !== -1 && (name !== host.slice(0, bracket + 1) || !isIPv6(name.slice(1, -1)))) return undefined
  // Only an address in brackets has a zone.
  if (bracket === -1 && name.includes('%')) return undefined
  return normalAddress(name)
}
