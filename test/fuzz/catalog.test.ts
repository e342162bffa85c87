/** Fuzzing of the catalog: the file of LMDB before it is mapped, and the node's rows in it. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SunwiseError } from '../../src/base/errors.ts'
import type { CatalogEdit } from '../../src/env.ts'
import { HostCatalog } from '../../src/host/catalog.ts'
import { catalogFileName, checkCatalogFile } from '../../src/host/catalog-file.ts'
import { defaultBucket, NodeRecord } from '../../src/host/node-record.ts'
import { SimCatalog } from '../sim/sim-catalog.ts'
import { fuzz } from './fuzzing.ts'

/** The data file of a catalog with rows of several sizes, without the zeros at its end. */
async function catalogFile(directory: string): Promise<Uint8Array> {
  const catalog = await HostCatalog.open(directory)
  const put = (key: string, value: Uint8Array): CatalogEdit => ({ op: 'put', key, value })
  for (const edits of [
    Array.from({ length: 150 }, (_, index) => put(`row/${index}`, new Uint8Array(index % 60).fill(7))),
    [put('large', new Uint8Array(9000).fill(9)), { op: 'delete', key: 'row/3' } as const],
  ]) {
    await new Promise<void>((resolve, reject) => {
      catalog.commit(edits, (error) => (error === undefined ? resolve() : reject(error)))
    })
  }
  await catalog.close()
  const bytes = readFileSync(join(directory, catalogFileName))
  return bytes.subarray(0, (bytes.findLastIndex((byte) => byte !== 0) | 4095) + 1)
}

const directory = mkdtempSync(join(tmpdir(), 'sunwise-fuzz-'))
const whole = await catalogFile(join(directory, 'catalog'))

fuzz('a file of any bytes is refused with CATALOG_CORRUPT, or adds up', (t) => {
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, catalogFileName)
  return {
    // The pages of meta data and the roots come alone, too, so that changes meet them more often.
    inputs: [whole, whole.subarray(0, 5 * 4096)],
    bytesMax: whole.length,
    look: (input) => {
      writeFileSync(path, input)
      try {
        checkCatalogFile(directory)
      } catch (error) {
        assert.ok(error instanceof SunwiseError && error.code === 'CATALOG_CORRUPT', String(error))
        return false
      }
      return true
    },
  }
})

fuzz('a row of the node of any bytes is CATALOG_CORRUPT, or JSON', () => {
  const rows = [
    { format: 1, nodeId: 'a', clusterId: 'b', clusterKey: 'AAAA' },
    { generation: 1, shards: 2, segmentBytes: 65536, retired: [] },
    { low: 1, high: 2, device: 3, inode: 4 },
    { id: 1, ...defaultBucket() },
  ]
  const catalog = new SimCatalog()
  const record = new NodeRecord(catalog)
  return {
    inputs: rows.map((row) => Buffer.from(JSON.stringify(row))),
    words: ['{', '}', '"', ':', 'null', '\xff', '\\u'],
    bytesMax: 300,
    look: (input) => {
      const keys = ['identity', 'log', 'actor', 'buckets/default']
      catalog.commit(
        keys.map((key) => ({ op: 'put', key, value: input })),
        () => {},
      )
      let read = 0
      for (const get of [() => record.identity, () => record.log, () => record.actor, () => record.buckets()]) {
        try {
          get()
          read++
        } catch (error) {
          assert.ok(error instanceof SunwiseError && error.code === 'CATALOG_CORRUPT', String(error))
        }
      }
      assert.ok(read === 0 || read === keys.length)
      return read > 0
    },
  }
})
