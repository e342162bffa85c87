/** Fuzzing of what arrives as bytes: tokens, cursors, clocks, log groups, control records, whole logs, rings. */
import assert from 'node:assert/strict'
import { AssertionError } from '../../src/base/assert.ts'
import { SunwiseError } from '../../src/base/errors.ts'
import { createRing, HeaderWord, ringHeaderBytes } from '../../src/base/ring-buffer.ts'
import { RingConsumer } from '../../src/base/ring-consumer.ts'
import { RingProducer } from '../../src/base/ring-producer.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { SipHash } from '../../src/base/siphash.ts'
import { CursorCodec } from '../../src/replication/cursor.ts'
import {
  decodeActors,
  decodeClocks,
  decodeSegmentHead,
  decodeTimestamps,
  encodeActors,
  encodeClocks,
  encodeSegmentHead,
  encodeTimestamps,
} from '../../src/storage/log-control.ts'
import {
  groupBytes,
  groupHeaderBytes,
  isGroup,
  retiredSequence,
  retirementMark,
  sealGroup,
} from '../../src/storage/log-group.ts'
import { recordHeaderBytes } from '../../src/storage/record.ts'
import { contextBytes, decodeContext, encodeContext } from '../../src/versions/context.ts'
import { PartitionClock } from '../../src/versions/partition-clock.ts'
import type { Vector } from '../../src/versions/version-set.ts'
import { SimDisk } from '../sim/sim-disk.ts'
import { bytesOf, crc32, logDirectory, readLog, StoreRig } from '../storage/store-rig.ts'
import { fuzz } from './fuzzing.ts'

const siphash = new SipHash(Uint8Array.from({ length: 16 }, (_, index) => index * 3))
const actors = { lowOf: (index: number) => index * 77, highOf: (index: number) => (index * 0x9e3779b1) >>> 0 }
const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0
const isAmong = (input: Uint8Array, inputs: readonly Uint8Array[]): boolean => inputs.some((one) => equal(one, input))

fuzz('a context is accepted only as it was given out', () => {
  const key = bytesOf('user:42')
  const tokenOf = (vector: Vector): Uint8Array => {
    const into = new Uint8Array(contextBytes(vector.length))
    assert.ok(encodeContext(siphash, into, 0, 12, 3, key, 0, key.length, vector, actors) > 0)
    return into
  }
  const inputs = [[1], [1, 2], [2, 5, 9, 11]].map((all) =>
    tokenOf(all.map((actor) => ({ actor, counter: actor * 2 ** 33 + 1 }))),
  )
  return {
    inputs,
    look: (input) => {
      const decoded = decodeContext(siphash, input, 0, input.length, 12, 3, key, 0, key.length)
      if (typeof decoded === 'string') {
        assert.ok(!isAmong(input, inputs), `A genuine context is refused: ${decoded}`)
        return false
      }
      assert.ok(isAmong(input, inputs), 'A context is accepted that was never given out')
      return true
    },
  }
})

fuzz('a cursor is accepted only as it was given out', () => {
  const codec = new CursorCodec(siphash)
  const inputs = [
    codec.encode(3, { partition: 0, after: undefined }),
    codec.encode(3, { partition: 1023, after: bytesOf('a') }),
    codec.encode(3, { partition: 7, after: bytesOf('a key of some length, with / and %') }),
  ]
  const ofOtherBucket = codec.encode(4, { partition: 1, after: undefined })
  return {
    inputs: [...inputs, ofOtherBucket],
    look: (input) => {
      const isGenuine = isAmong(input, inputs)
      assert.equal(codec.decode(3, input) !== undefined, isGenuine)
      return isGenuine
    },
  }
})

fuzz('a clock of a partition has one form in bytes, and others are refused', () => {
  const clocks = [1, 2, 3].map((seed) => {
    const clock = new PartitionClock()
    const random = new SeededRandom(seed)
    for (let dots = 0; dots < 40 * seed; dots++) clock.add(random.below(seed), 1 + random.below(120))
    return clock
  })
  const table: { low: number; high: number }[] = []
  const indexOf = (low: number, high: number): number => {
    const found = table.findIndex((actor) => actor.low === low && actor.high === high)
    return found >= 0 ? found : table.push({ low, high }) - 1
  }
  return {
    inputs: clocks.map((clock) => clock.encode(actors)),
    look: (input) => {
      table.length = 0
      const clock = PartitionClock.decode(input, 0, input.length, indexOf)
      if (typeof clock === 'string') {
        assert.equal(table.length, 0, 'Bytes that are no clock leave no actors')
        return false
      }
      const again = clock.encode({ lowOf: (index) => table[index]!.low, highOf: (index) => table[index]!.high })
      assert.ok(equal(again, input), 'It is encoded as it was')
      return true
    },
  }
})

fuzz('a log group is whole as it was sealed, or none', () => {
  const random = new SeededRandom(4)
  const inputs = [0, 1, 9].map((words) => {
    const u8 = new Uint8Array(groupHeaderBytes + words * 4)
    random.fill(u8)
    sealGroup(u8, new Int32Array(u8.buffer), 0, u8.length, 5 + words, words, 4, 128, crc32)
    return u8
  })
  const copy = new Uint8Array(8192)
  const i32 = new Int32Array(copy.buffer)
  return {
    inputs,
    look: (input) => {
      copy.set(input)
      if (!isGroup(copy, i32, 0, input.length, crc32)) {
        assert.ok(!isAmong(input, inputs))
        return false
      }
      const bytes = groupBytes(i32, 0)
      assert.ok(bytes >= groupHeaderBytes && bytes <= input.length && bytes % 4 === 0)
      // What stands behind a group is not its concern.
      assert.ok(isAmong(input.subarray(0, bytes), inputs), 'A group is accepted that nobody sealed')
      return true
    },
  }
})

fuzz('a retirement mark stands as it was written, or not at all', () => {
  const inputs = [1, 77, 0x7fff_ffff].map((sequence) => retirementMark(sequence, crc32))
  const copy = new Uint8Array(8192)
  const i32 = new Int32Array(copy.buffer)
  return {
    inputs,
    look: (input) => {
      copy.fill(0, 0, 16)
      copy.set(input)
      const sequence = retiredSequence(copy, i32, 0, crc32)
      if (sequence < 0) return false
      assert.ok(equal(copy.subarray(0, 16), retirementMark(sequence, crc32)), 'It is the mark of its sequence')
      return true
    },
  }
})

fuzz('control records of any bytes are decoded within their bounds, or not', () => {
  const head = {
    segmentBytes: 65536,
    previousSequence: 3,
    previousBytes: 4000,
    oldestSequence: 1,
    shard: 1,
    shards: 2,
    partitions: 1024,
  }
  const ids = [1, 2, 3].map((low) => ({ low, high: low * 5 }))
  const clocks = [1, 2, 3].map((partition) => ({ partition, actor: 1, counter: partition * 2 ** 34 }))
  const copy = new Uint8Array(8192)
  const i32 = new Int32Array(copy.buffer)
  return {
    inputs: [encodeSegmentHead(head), encodeActors(0, ids), encodeClocks(clocks), encodeTimestamps(1.7e12)],
    look: (input) => {
      if (input.length < recordHeaderBytes) return false
      copy.set(input)
      // Recovery has checked that the record lies within its group.
      const bytes = input.length & ~3
      i32[0] = bytes
      const payload = bytes - recordHeaderBytes
      const table = decodeActors(copy, i32, 0)
      if (table !== undefined) assert.ok(8 + table.ids.length * 8 <= payload)
      const entries = decodeClocks(copy, i32, 0)
      if (entries !== undefined) {
        assert.ok(4 + entries.length * 12 <= payload)
        for (const { partition, actor, counter } of entries) {
          assert.ok(partition <= 0xffff && actor <= 0xffff && counter >= 0)
        }
      }
      const through = decodeTimestamps(copy, i32, 0)
      if (through !== undefined) assert.ok(payload >= 8 && Number.isSafeInteger(through))
      const decoded = decodeSegmentHead(copy, i32, 0)
      assert.equal(decoded !== undefined, payload >= 28)
      return decoded !== undefined
    },
  }
})

fuzz('a log of any bytes gives records that were written, in their order, or LOG_CORRUPT', () => {
  const source = new SimDisk()
  source.makeDirectoryNow(logDirectory)
  const rig = new StoreRig(source).open()
  for (let write = 0; write < 24; write++) {
    rig.put(`key${write % 5}`, bytesOf(`value ${write}`), { sync: write % 3 === 0 })
    if (write % 2 === 0) rig.store.flush()
  }
  rig.close()
  const [name] = source.listNow(logDirectory)
  const original = source.openNow(`${logDirectory}/${name}`)
  const whole = new Uint8Array(original.sizeNow())
  original.readNow(whole, 0, whole.length, 0)
  const end = whole.findLastIndex((byte) => byte !== 0) + 1
  const written = readLog(source).records.map((record) => Buffer.from(record).toString('latin1'))
  assert.equal(written.length, 24)
  const disk = new SimDisk()
  disk.makeDirectoryNow(logDirectory)
  return {
    inputs: [whole.slice(0, (end + 3) & ~3), whole.slice(0, 600)],
    bytesMax: 8192,
    look: (input, random) => {
      disk.wipe()
      disk.makeDirectoryNow(logDirectory)
      const file = disk.createNow(`${logDirectory}/${name}`)
      if (input.length > 0) file.writeNow(input, 0, input.length, 0)
      const { error, records } = readLog(disk, { salvage: random.chance(1, 4) })
      if (error !== undefined) {
        assert.ok(error instanceof SunwiseError)
        assert.equal(error.code, 'LOG_CORRUPT')
        return false
      }
      let next = 0
      for (const record of records) {
        const text = Buffer.from(record).toString('latin1')
        while (next < written.length && written[next] !== text) next++
        assert.ok(next < written.length, 'Every record was written, and none comes twice or too early')
        next++
      }
      return records.length > 0
    },
  }
})

fuzz('a ring of any bytes is corrupt or gives messages within their bounds', () => {
  const capacityBytes = 512
  const messageBytesMax = 400
  /** A ring that has been used up to somewhere before its end, and the index up to which it was. */
  const usedRing = (laps: number) => {
    const region = createRing(capacityBytes)
    const producer = new RingProducer(region, { outboxBytesMax: 4096, messageBytesMax })
    const consumer = new RingConsumer(region, { messageBytesMax })
    for (let lap = 0; lap < laps; lap++) {
      producer.send(new Uint8Array(80), 0, 80)
      producer.publish()
      consumer.drain(() => {}, 10)
    }
    return { region, producer, consumer }
  }
  const inputs = [0, 3, 5].map((laps) => {
    const { region, producer } = usedRing(laps)
    const random = new SeededRandom(laps)
    for (let message = 0; message < 6; message++) {
      const bytes = new Uint8Array(random.below(laps === 3 ? 300 : 60)).fill(message)
      producer.send(bytes, 0, bytes.length)
    }
    producer.publish()
    const copy = new Uint8Array(8 + capacityBytes)
    copy[0] = laps
    new DataView(copy.buffer).setInt32(4, new Int32Array(region.buffer)[HeaderWord.write]!, true)
    copy.set(new Uint8Array(region.buffer, ringHeaderBytes), 8)
    return copy
  })
  return {
    inputs,
    bytesMax: 8 + capacityBytes,
    look: (input) => {
      if (input.length < 8) return false
      const { region, consumer } = usedRing(input[0]! & 7)
      new Uint8Array(region.buffer, ringHeaderBytes).set(input.subarray(8))
      new Int32Array(region.buffer)[HeaderWord.write] =
        input[4]! | (input[5]! << 8) | (input[6]! << 16) | (input[7]! << 24)
      let messages = 0
      try {
        consumer.drain((u8, i32, start, bytes) => {
          assert.ok(start % 8 === 0 && bytes >= 0 && bytes <= messageBytesMax)
          assert.ok(start + bytes <= u8.length && u8.length === i32.length * 4)
          messages++
        }, 1000)
      } catch (error) {
        assert.ok(error instanceof AssertionError && error.message.startsWith('A ring is corrupt'), String(error))
        return false
      }
      return messages > 0
    },
  }
})
