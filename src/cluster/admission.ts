/**
 * How a node that has no cluster yet hears which one it is about to join: it asks the addresses that it was told, over and over, until a
 * member answers. The answer holds the key under which the cluster's contexts and cursors are signed, so that what one node gave out holds at
 * every other. Whoever reaches the address for peers may read and write everything there, so the key gives away nothing more; it never
 * leaves by HTTP. Little-endian, version 1:
 *
 *   ask       u8 version   u8 1                                       which cluster is this?
 *   welcome   u8 version   u8 2   u64 clusterId   16 bytes key        this one
 *
 * Decoding takes these forms only and never throws. An object without a thread, clock or socket: `receive` and `tick` move it.
 */
import { ByteReader, ByteWriter } from '../base/bytes.ts'
import { noId, readId, writeId } from './topology/topology-bytes.ts'

/** What all nodes of a cluster share. */
export type ClusterIdentity = { readonly clusterId: string; readonly clusterKey: Uint8Array }

export type AdmissionMessage = { readonly type: 'ask' } | ({ readonly type: 'welcome' } & ClusterIdentity)

const version = 1
const ask = 1
const welcome = 2
export const clusterKeyBytes = 16
const askIntervalMs = 500

export function encodeAdmission(message: AdmissionMessage): Uint8Array {
  const writer = new ByteWriter(32)
  writer.u8(version)
  writer.u8(message.type === 'ask' ? ask : welcome)
  if (message.type === 'welcome') {
    writeId(writer, message.clusterId)
    writer.raw(message.clusterKey)
  }
  return writer.toBytes()
}

/** The message that `encodeAdmission` wrote; undefined for any other bytes. */
export function decodeAdmission(bytes: Uint8Array): AdmissionMessage | undefined {
  const reader = new ByteReader(bytes)
  if (reader.u8() !== version) return undefined
  const type = reader.u8()
  if (type === ask) return reader.failed || reader.remaining > 0 ? undefined : { type: 'ask' }
  const clusterId = readId(reader)
  const clusterKey = reader.raw(clusterKeyBytes)
  const isWhole = type === welcome && !reader.failed && reader.remaining === 0 && clusterId !== noId
  return isWhole ? { type: 'welcome', clusterId, clusterKey: clusterKey.slice() } : undefined
}

export type AdmissionOptions = {
  readonly seeds: readonly string[]
  send(address: string, bytes: Uint8Array): void
  /** Called once. */
  admitted(identity: ClusterIdentity): void
}

export class Admission {
  readonly #options: AdmissionOptions
  #nextMs = 0
  #isAdmitted = false

  constructor(options: AdmissionOptions) {
    this.#options = options
  }

  /** Every 20 to 100 ms. */
  tick(nowMs: number): void {
    if (this.#isAdmitted || nowMs < this.#nextMs) return
    this.#nextMs = nowMs + askIntervalMs
    for (const seed of this.#options.seeds) this.#options.send(seed, encodeAdmission({ type: 'ask' }))
  }

  /** What a node says; the first welcome counts. */
  receive(bytes: Uint8Array): void {
    const message = decodeAdmission(bytes)
    if (message?.type !== 'welcome' || this.#isAdmitted) return
    this.#isAdmitted = true
    this.#options.admitted(message)
  }
}
