/**
 * Where the nodes of `dev --nodes` reach each other: kept from start to start, so that each finds the others where it knows them.
 *
 *   <data directory>/dev.json    { "version": 1, "peerPorts": [40117, 40121, null] }    n1, n2, ...; null: not known
 *
 * A node whose port is taken gets another one, and has the others correct its address, which takes most of them where they were: so
 * one of them may move at a time. A file that cannot be read, or of another version, knows no port.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'

/** All nodes are on this machine. */
export const peerHost = '127.0.0.1'

export type PeerPorts = readonly (number | undefined)[]

const version = 1

export function encodePeerPorts(ports: PeerPorts): string {
  return `${JSON.stringify({ version, peerPorts: Array.from(ports, (port) => port ?? null) })}\n`
}

/** Never throws. */
export function decodePeerPorts(text: string): PeerPorts {
  let content: unknown
  try {
    content = JSON.parse(text)
  } catch {
    return []
  }
  if (typeof content !== 'object' || content === null) return []
  const { version: found, peerPorts } = content as Record<string, unknown>
  if (found !== version || !Array.isArray(peerPorts)) return []
  return peerPorts.map((port: unknown) =>
    typeof port === 'number' && Number.isInteger(port) && port > 0 && port < 65_536 ? port : undefined,
  )
}

const fileOf = (directory: string): string => join(directory, 'dev.json')

export function readPeerPorts(directory: string): PeerPorts {
  try {
    return decodePeerPorts(readFileSync(fileOf(directory), 'utf8'))
  } catch {
    return []
  }
}

/** Whole or not at all. @throws what the file system says */
export function writePeerPorts(directory: string, ports: PeerPorts): void {
  const file = fileOf(directory)
  writeFileSync(`${file}.new`, encodePeerPorts(ports), { flush: true })
  renameSync(`${file}.new`, file)
}

/** A port where nobody listens at this moment: `wanted`, or any; undefined where somebody does on `wanted`. */
export function freePort(wanted = 0): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer()
    server.on('error', () => resolve(undefined))
    server.listen(wanted, peerHost, () => {
      const { port } = server.address() as { readonly port: number }
      server.close(() => resolve(port))
    })
  })
}
