/** Transports for tests: they listen on free ports of this machine and keep what comes. */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { HostClock } from '../../../src/host/clock.ts'
import { PeerTransport, type PeerTransportOptions } from '../../../src/host/peer/peer-transport.ts'
import { HostRandom } from '../../../src/host/random.ts'

export type Come = { readonly from: string; readonly nodeId: string; readonly bytes: Uint8Array }

export type PeerRig = {
  readonly transport: PeerTransport
  readonly come: Come[]
  readonly warnings: string[]
}

export const clusterId = 'c0ffee00c0ffee00'

export function idOf(node: number): string {
  return (0xa000 + node).toString(16).padStart(16, '0')
}

export async function openPeer(options: Partial<PeerTransportOptions> = {}): Promise<PeerRig> {
  const come: Come[] = []
  const warnings: string[] = []
  const transport = await PeerTransport.listen({
    nodeId: idOf(1),
    clusterId,
    host: '127.0.0.1',
    port: 0,
    insecure: false,
    clock: new HostClock(),
    random: new HostRandom(),
    receive: ({ address, nodeId }, bytes) => come.push({ from: address, nodeId, bytes }),
    warn: (text) => warnings.push(text),
    ...options,
  })
  return { transport, come, warnings }
}

/** Looks every few milliseconds whether something holds; fails after 20 seconds. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  const startMs = performance.now()
  while (!holds()) {
    assert.ok(performance.now() - startMs < 20_000, `In time: ${what}`)
    await delay(5)
  }
}
