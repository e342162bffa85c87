/** The requests of the HTTP rows, rendered once: random keys of the key set, the same for every contender. */
import { renderRequest } from '../http-contender.ts'
import { KeySet, keyText, Sequence } from '../key-set.ts'

const requestsRendered = 2000

const batchesRendered = 50

/** Shares of a mixed load, in requests of 100: the rest are gets. */
const mixedShares = { puts: 20, batchesOfPuts: 4, batchesOfGets: 4, lists: 2 }

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

/** Single gets and puts, batches of 100 of both, and pages of 1,000 keys, well mixed. */
export function mixedRequests(keys: number): Uint8Array[] {
  const size = Math.min(100, keys)
  const kinds = [
    { requests: putRequests(keys), share: mixedShares.puts },
    { requests: batchRequests('put', size, keys), share: mixedShares.batchesOfPuts },
    { requests: batchRequests('get', size, keys), share: mixedShares.batchesOfGets },
    { requests: [renderRequest('GET', '/v1/kv/default?limit=1000')], share: mixedShares.lists },
  ]
  const order = new Sequence(7)
  return getRequests(keys).map((get, index) => {
    let draw = order.below(100)
    for (const { requests, share } of kinds) {
      if (draw < share) return requests[index % requests.length]!
      draw -= share
    }
    return get
  })
}

function randomIndices(set: KeySet): number[] {
  return Array.from(set.probeIndices.subarray(0, requestsRendered))
}
