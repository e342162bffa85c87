/**
 * Which endpoints hold a key, from what the nodes publish: `/v1/cluster` says who answers at an endpoint, `/v1/ring` which nodes hold each
 * partition. Nodes are found by the ids they tell, so the addresses are always the caller's own, as it can reach them. A node of the ring
 * without an endpoint is passed over: any node serves every key, at the price of one more hop. So may be a ring that is out of date.
 */
import { slotOfKey } from '../cluster/slots.ts'
import { Limits } from '../config.ts'
import { isObject, stringIn } from './http-answer.ts'

/** Replicas of every partition by node id, the preferred first. */
export type Ring = { readonly epoch: number; readonly partitions: readonly (readonly string[])[] }

/** Who answers at an endpoint, and what it goes by. */
export type Identity = { readonly nodeId: string; readonly epoch: number }

/** What `/v1/cluster` says; undefined if that cannot be read. */
export function identityIn(document: unknown): Identity | undefined {
  if (!isObject(document)) return undefined
  const nodeId = stringIn(document, 'nodeId')
  const epoch = document['epoch']
  return nodeId === undefined || typeof epoch !== 'number' ? undefined : { nodeId, epoch }
}

/** What `/v1/ring` says; undefined unless all of it can be read. */
export function ringIn(document: unknown): Ring | undefined {
  if (!isObject(document)) return undefined
  const { epoch, partitions: rows } = document
  if (typeof epoch !== 'number' || !Array.isArray(rows)) return undefined
  if (rows.length === 0 || rows.length > Limits.partitionsMax || !Number.isInteger(Math.log2(rows.length)))
    return undefined
  const partitions: (readonly string[])[] = []
  for (const [index, row] of rows.entries()) {
    const replicas: unknown = isObject(row) && row['partition'] === index ? row['replicas'] : undefined
    if (!Array.isArray(replicas) || !replicas.every((nodeId): nodeId is string => typeof nodeId === 'string'))
      return undefined
    partitions.push(replicas)
  }
  return { epoch, partitions }
}

/** Node ids of the replicas of `key`, the preferred first. */
export function replicasOf(ring: Ring, key: Uint8Array): readonly string[] {
  const slot = slotOfKey(key, 0, key.length)
  return ring.partitions[Math.floor((slot * ring.partitions.length) / Limits.slots)]!
}
