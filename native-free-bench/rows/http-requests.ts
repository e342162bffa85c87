/** The requests of the HTTP rows, rendered once: random keys of the key set, the same for every contender. */
import { renderRequest } from '../http-contender.ts'
import { KeySet, keyText } from '../key-set.ts'

const requestsRendered = 2000

/** Where the HTTP rows keep their keys. */
export const keyPath = (index: number): string => `/v1/kv/bench/${keyText(index)}`

/** GETs of random keys out of `keys`. */
export function getRequests(keys: number): Uint8Array[] {
  const set = new KeySet(keys)
  return randomIndices(set).map((index) => renderRequest('GET', keyPath(index)))
}

/** PUTs of 100 B to random keys out of `keys`. */
export function putRequests(keys: number): Uint8Array[] {
  const set = new KeySet(keys)
  return randomIndices(set).map((index) => renderRequest('PUT', keyPath(index), set.value(index)))
}

function randomIndices(set: KeySet): number[] {
  return Array.from(set.probeIndices.subarray(0, Math.min(requestsRendered, set.probeCount)))
}
