/**
 * What the small parts of the hot paths cost alone, in one thread, with everything in cache: for finding out where the time of a
 * row goes. `npm run bench:micro [pattern]`. These figures are not gated and stand in no table.
 */
import { Bench } from 'tinybench'
import { crc16 } from '../src/base/crc16.ts'
import { KeyHash } from '../src/base/key-hash.ts'
import { createRing } from '../src/base/ring-buffer.ts'
import { RingConsumer } from '../src/base/ring-consumer.ts'
import { RingProducer } from '../src/base/ring-producer.ts'
import { SipHash } from '../src/base/siphash.ts'
import { partitionOfSlot, slotOfKey } from '../src/cluster/slots.ts'
import { zstd } from '../src/host/native-codes.ts'
import { decodeRecord, encodeRecord } from '../src/storage/record.ts'
import { decodeContext, encodeContext } from '../src/versions/context.ts'
import { digest, digestText, type VersionSet } from '../src/versions/version-set.ts'
import { KeySet, keyBytes, valueBytes } from './key-set.ts'

const keyCount = 1024
const bucketId = 1
/** Calls per measured function, so that the clock is not what is measured. */
const callsPerTask = 256

const set = new KeySet(keyCount)
const keys = set.probeKeys()
const hash = new KeyHash({ low: 1, high: 2 })
const mac = new SipHash(new Uint8Array(16).fill(7))
const actors = { lowOf: () => 0x1234_5678, highOf: () => 0x9abc_def0 }
const versions: VersionSet = {
  versions: [
    {
      actor: 0,
      counter: 12_345,
      tombstone: false,
      expiresAtMs: 0,
      timestamp: 0,
      contentType: 'application/octet-stream',
      value: set.value(1),
    },
  ],
  vector: [{ actor: 0, counter: 12_345 }],
}
const slot = slotOfKey(keys, 0, keyBytes)
const recordWords = new Int32Array(1024)
const recordBytes = new Uint8Array(recordWords.buffer)
encodeRecord(recordBytes, recordWords, 0, slot, bucketId, keys, 0, keyBytes, versions)
const token = new Uint8Array(256)
const partition = partitionOfSlot(slot)
const tokenBytes = encodeContext(mac, token, 0, partition, bucketId, keys, 0, keyBytes, versions.vector, actors)

const messageBytes = 48 + keyBytes + valueBytes
const region = createRing(1 << 20)
const producer = new RingProducer(region, { outboxBytesMax: 0, messageBytesMax: 1 << 16 })
const consumer = new RingConsumer(region, { messageBytesMax: 1 << 16 })

/** A record such as applications keep, alone and as many as fill a block of a table: what compressing memory would deal with. */
const documentOf = (index: number): string =>
  JSON.stringify({
    id: index,
    name: `user ${index * 7919}`,
    email: `u${index * 31}@example.org`,
    active: index % 3 > 0,
  })
const document = new TextEncoder().encode(documentOf(1))
const block = new TextEncoder().encode(Array.from({ length: 48 }, (_, index) => documentOf(index)).join(''))
const packedDocument = zstd.compress(document)
const packedBlock = zstd.compress(block)
const packedText = ({ length }: Uint8Array, packed: Uint8Array): string => `${length} B packed in ${packed.length}`

/** Results go here, so that no call is optimised away. */
let seen = 0

const parts: Readonly<Record<string, (index: number) => void>> = {
  'crc16 of a key of 16 B': (index) => {
    seen += crc16(keys, index * keyBytes, (index + 1) * keyBytes)
  },
  'slotOfKey, 16 B': (index) => {
    seen += slotOfKey(keys, index * keyBytes, (index + 1) * keyBytes)
  },
  'KeyHash.update, 16 B': (index) => {
    hash.update(bucketId, keys, index * keyBytes, (index + 1) * keyBytes)
    seen += hash.low
  },
  'encodeRecord, 16 + 100 B': () => {
    seen += encodeRecord(recordBytes, recordWords, 0, slot, bucketId, keys, 0, keyBytes, versions)
  },
  'decodeRecord, 16 + 100 B': () => {
    seen += decodeRecord(recordBytes, recordWords, 0).versions.length
  },
  'digest and digestText': () => {
    seen += digestText(digest(versions, actors)).length
  },
  'encodeContext, one actor': () => {
    seen += encodeContext(mac, token, 0, partition, bucketId, keys, 0, keyBytes, versions.vector, actors)
  },
  'decodeContext, one actor': () => {
    const entries = decodeContext(mac, token, 0, tokenBytes, partition, bucketId, keys, 0, keyBytes)
    if (typeof entries === 'string') throw new Error(`The context is refused: ${entries}`)
    seen += entries.length
  },
  [`zstd, unpack a record, ${packedText(document, packedDocument)}`]: () => {
    seen += zstd.decompress(packedDocument, document.length).length
  },
  [`zstd, unpack a block, ${packedText(block, packedBlock)}`]: () => {
    seen += zstd.decompress(packedBlock, block.length).length
  },
  'ring, one message of 164 B': () => {
    if (producer.reserveOrQueue(messageBytes) < 0) throw new Error('The ring is full')
    producer.commit()
    producer.publish()
    seen += consumer.drain(() => {}, 1)
  },
}

async function main(pattern: string): Promise<void> {
  const bench = new Bench({ time: 300, warmupTime: 100 })
  for (const [name, part] of Object.entries(parts)) {
    if (!name.toLowerCase().includes(pattern.toLowerCase())) continue
    bench.add(name, () => {
      for (let index = 0; index < callsPerTask; index++) part(index)
    })
  }
  await bench.run()
  for (const { name, result } of bench.tasks) {
    if (!('latency' in result)) throw new Error(`"${name}" gave no figure`)
    const nanoseconds = (result.latency.p50 * 1e6) / callsPerTask
    process.stdout.write(`${name.padEnd(52)} ${nanoseconds.toFixed(1).padStart(8)} ns\n`)
  }
  if (!Number.isFinite(seen)) throw new Error('A part gave no number')
}

await main(process.argv[2] ?? '')
