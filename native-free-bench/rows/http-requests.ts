/** The requests of the HTTP rows, rendered once: random keys of the key set, the same for every contender. */
import { renderRequest } from '../http-contender.ts'
import { KeySet, keyText } from '../key-set.ts'

const requestsRendered = 2000

const batchesRendered = 50

/** The HTTP rows keep their keys in the bucket that every node has. */
const keyPath = (index: number): string => `/v1/kv/default/${keyText(index)}`

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

/** Batches of `size` gets or puts of random keys out of `keys`, as JSON with values in base64. */
export function batchRequests(operation: 'get' | 'put', size: number, keys: number): Uint8Array[] {
  const set = new KeySet(keys)
  const operationOf = (index: number): object => {
    const key = keyText(index)
    return operation === 'get' ? { op: 'get', key } : { op: 'put', key, value64: set.value(index).toString('base64') }
  }
  return Array.from({ length: batchesRendered }, (_, batch) => {
    const at = (batch * size) % (set.probeCount - size + 1)
    const operations = Array.from(set.probeIndices.subarray(at, at + size), operationOf)
    return renderRequest('POST', '/v1/batch/default', Buffer.from(JSON.stringify(operations)), 'application/json')
  })
}

function randomIndices(set: KeySet): number[] {
  return Array.from(set.probeIndices.subarray(0, requestsRendered))
}
