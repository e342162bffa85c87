import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ByteWriter } from '../../src/base/bytes.ts'
import type { EpochMs, MonotonicMs } from '../../src/base/ids.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import {
  type ClockMessage,
  ClockWatch,
  decodeClockMessage,
  encodeClockMessage,
  medianOffset,
} from '../../src/cluster/clock-watch.ts'

/** Nodes whose wall clocks are so many milliseconds off; messages take `delayMs` each way. */
class Clocks {
  readonly watches: ClockWatch[]
  readonly offsets: number[]
  readonly alive: boolean[]
  #nowMs = 1000
  readonly #messages: { readonly at: number; readonly deliver: () => void }[] = []

  constructor(offsets: readonly number[], delayMs: number) {
    this.offsets = [...offsets]
    this.alive = offsets.map(() => true)
    const names = offsets.map((_, index) => `n${index}`)
    this.watches = offsets.map(
      (_, index) =>
        new ClockWatch({
          clock: {
            monotonicMs: () => this.#nowMs as MonotonicMs,
            epochMs: () => (1_000_000 + this.#nowMs + this.offsets[index]!) as EpochMs,
          },
          random: new SeededRandom(`clock ${index}`),
          peers: () => names.filter((_, other) => other !== index && this.alive[other]),
          send: (to, bytes) => {
            const target = names.indexOf(to)
            const deliver = (): void => this.watches[target]!.receive(names[index]!, bytes)
            this.#messages.push({ at: this.#nowMs + delayMs, deliver })
          },
        }),
    )
  }

  pass(durationMs: number): void {
    for (const end = this.#nowMs + durationMs; this.#nowMs < end; this.#nowMs += 50) {
      for (const watch of this.watches) watch.tick(this.#nowMs)
      for (const due of this.#messages.splice(0)) {
        if (due.at <= this.#nowMs) due.deliver()
        else this.#messages.push(due)
      }
    }
  }

  get astray(): readonly boolean[] {
    return this.watches.map(({ isAstray }) => isAstray)
  }
}

test('ClockWatch: of three nodes the one whose clock is off knows it, the others go on', () => {
  const clocks = new Clocks([0, 40, 900], 20)
  clocks.pass(10_000)
  assert.deepEqual(clocks.astray, [false, false, true])
  assert.ok(Math.abs(clocks.watches[2]!.offsetMs + 880) < 100, `${clocks.watches[2]!.offsetMs}`)
  clocks.offsets[2] = 0
  clocks.pass(10_000)
  assert.deepEqual(clocks.astray, [false, false, false])
})

test('ClockWatch: of two nodes that differ both doubt, and a node alone does not', () => {
  const clocks = new Clocks([0, -3_600_000], 5)
  clocks.pass(5000)
  assert.deepEqual(clocks.astray, [true, true])
  const alone = new Clocks([7_000_000], 5)
  alone.pass(5000)
  assert.deepEqual(alone.astray, [false])
  // What a peer said that is gone is forgotten after a while.
  clocks.alive[1] = false
  clocks.pass(130_000)
  assert.equal(clocks.watches[0]!.isAstray, false)
})

test('ClockWatch: a slow network convicts no clock that is right', () => {
  const clocks = new Clocks([0, 100, -100, 0, 50], 800)
  clocks.pass(60_000)
  assert.deepEqual(clocks.astray, [false, false, false, false, false])
})

test('ClockWatch: answers that nobody asked for, and bytes that are no message, change nothing', () => {
  const clocks = new Clocks([0, 0], 5)
  clocks.pass(3000)
  const [watch] = clocks.watches
  watch!.receive('n1', encodeClockMessage({ type: 'tell', askedMs: 77, epochMs: 9_000_000_000 }))
  watch!.receive('n1', new Uint8Array(0))
  watch!.receive('n1', Uint8Array.of(1, 2, 3))
  assert.equal(watch!.isAstray, false)
})

test('medianOffset() counts this node as 0, and of two middle ones takes the farther', () => {
  assert.equal(medianOffset([]), 0)
  assert.equal(medianOffset([800]), 800)
  assert.equal(medianOffset([-800]), -800)
  assert.equal(medianOffset([800, 10]), 10)
  assert.equal(medianOffset([800, 900]), 800)
  assert.equal(medianOffset([800, 900, 0]), 800)
})

const messages: readonly ClockMessage[] = [
  { type: 'ask', askedMs: 1_700_000_000_000 },
  { type: 'tell', askedMs: 5, epochMs: 6 },
]

test('Clock messages: each kind has exactly these bytes, and nothing else is one', () => {
  const hex = messages.map((message) => Buffer.from(encodeClockMessage(message)).toString('hex'))
  assert.deepEqual(hex, ['01010068e5cf8b010000', '010205000000000000000600000000000000'])
  for (const message of messages) {
    const bytes = encodeClockMessage(message)
    assert.deepEqual(decodeClockMessage(bytes), message)
    for (let end = 0; end < bytes.length; end++) assert.equal(decodeClockMessage(bytes.subarray(0, end)), undefined)
    assert.equal(decodeClockMessage(Uint8Array.of(...bytes, 0)), undefined)
    assert.equal(decodeClockMessage(Uint8Array.of(2, ...bytes.subarray(1))), undefined)
    assert.equal(decodeClockMessage(Uint8Array.of(1, 3, ...bytes.subarray(2))), undefined)
  }
  const writer = new ByteWriter(10)
  writer.u8(1)
  writer.u8(1)
  writer.u32(0xffff_ffff)
  writer.u32(0xffff_ffff)
  assert.equal(decodeClockMessage(writer.toBytes()), undefined)
})
