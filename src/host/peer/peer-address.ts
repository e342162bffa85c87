/** Addresses of nodes as they stand in the topology: `host:port` or `[ipv6]:port`, in ASCII. Names are looked up anew for each connection. */
import { isIPv6 } from 'node:net'
import { Limits } from '../../config.ts'

export type PeerAddress = { readonly host: string; readonly port: number }

/** Undefined where the text is no address; it may come from anybody. */
export function parsePeerAddress(text: string): PeerAddress | undefined {
  if (text.length > Limits.memberAddressBytesMax) return undefined
  const colon = text.lastIndexOf(':')
  const port = text.slice(colon + 1)
  if (colon <= 0 || !/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65535) return undefined
  const host = text.slice(0, colon)
  if (host.startsWith('[') && host.endsWith(']')) {
    const bare = host.slice(1, -1)
    return isIPv6(bare) && /^[0-9a-fA-F:.]+$/.test(bare) ? { host: bare, port: Number(port) } : undefined
  }
  return /^[A-Za-z0-9._-]+$/.test(host) ? { host, port: Number(port) } : undefined
}

export function formatPeerAddress({ host, port }: PeerAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}
