/**
 * A plain, fast fuzzer: valid inputs changed at random, and random bytes, by the million. No shrinking: a failure names the seed
 * and shows the input. SUNWISE_TEST_SEED replays a run; SUNWISE_TEST_SCALE makes it longer.
 */
import { type TestContext, test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const seed = Number(process.env['SUNWISE_TEST_SEED'] ?? Date.now() % 1_000_000)

/** What the tiers of the tests ask for, where it takes no longer than this. */
const executionsWanted = 1_000_000 * scale
const durationMsMax = 3000 * scale
/** Fewer are too few to call it fuzzing: a machine that is slow just now takes longer for them, but not without end. */
const executionsMin = 2000
const durationMsLimit = 20 * durationMsMax

/** Numbers at which formats break. */
const edges = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 129, 254, 255]

export type FuzzOptions = {
  /** Valid inputs. */
  readonly inputs: readonly Uint8Array[]
  /** Texts that mean something to the parser; put in anywhere. */
  readonly words?: readonly string[]
  /** Greatest length of an input; 4096 if not given. */
  readonly bytesMax?: number
  /** Changed bytes stay at multiples of 4. */
  readonly isWords?: boolean
  /**
   * Looks at one input, whose memory is used again for the next one; it stays as it is. True where the parser accepted it.
   * Throws where anything is wrong.
   */
  readonly look: (input: Uint8Array, random: SeededRandom) => boolean
}

/** One test that runs `look` on as many inputs as time allows, a million by default. */
export function fuzz(name: string, makeOptions: (t: TestContext) => FuzzOptions): void {
  test(`Fuzzing: ${name}`, (t) => {
    const options = makeOptions(t)
    const random = new SeededRandom(`${name} ${seed}`)
    const changer = new Changer(options, random)
    const startMs = performance.now()
    let executions = 0
    let accepted = 0
    // Refusals are errors; where they were made is of no interest, and costs more than the rest.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    let input: Uint8Array = new Uint8Array(0)
    try {
      while (executions < executionsWanted) {
        input = changer.next()
        if (options.look(input, random)) accepted++
        executions++
        if ((executions & 255) !== 0) continue
        const durationMs = performance.now() - startMs
        if (durationMs > (executions < executionsMin ? durationMsLimit : durationMsMax)) break
      }
    } catch (error) {
      const shown = JSON.stringify(textOf(input.subarray(0, 2000)))
      const what = error instanceof Error ? error.message : String(error)
      throw new Error(`Seed ${seed}, execution ${executions}, ${input.length} bytes: ${shown}: ${what}`, {
        cause: error,
      })
    } finally {
      Error.stackTraceLimit = stackTraceLimit
    }
    t.diagnostic(
      `seed ${seed}: ${executions} executions in ${Math.round(performance.now() - startMs)} ms, ${accepted} accepted`,
    )
    if (executions < executionsMin) throw new Error(`Only ${executions} executions`)
    if (accepted === 0) throw new Error('No input was accepted: the fuzzer knows no valid one')
    if (accepted === executions) throw new Error('No input was refused')
  })
}

/** Makes inputs. */
class Changer {
  readonly #inputs: readonly Uint8Array[]
  readonly #words: readonly Uint8Array[]
  readonly #random: SeededRandom
  readonly #buffer: Uint8Array
  readonly #grain: number
  #length = 0

  constructor({ inputs, words = [], bytesMax = 4096, isWords = false }: FuzzOptions, random: SeededRandom) {
    this.#inputs = inputs
    this.#words = words.map((word) => Buffer.from(word, 'latin1'))
    this.#random = random
    this.#grain = isWords ? 4 : 1
    this.#buffer = new Uint8Array(bytesMax)
  }

  next(): Uint8Array {
    const random = this.#random
    const draw = random.u32() & 63
    if (draw === 0) {
      this.#length = this.#below(Math.min(64, this.#buffer.length) + 1)
      for (let at = 0; at < this.#length; at++) this.#buffer[at] = random.u32()
      return this.#whole()
    }
    const input = this.#inputs[this.#below(this.#inputs.length)]!
    this.#length = Math.min(input.length, this.#buffer.length)
    this.#buffer.set(input.subarray(0, this.#length))
    // One in 32 stays as it is.
    if (draw <= 2) return this.#whole()
    for (let changes = 1 + (random.u32() & 3); changes > 0; changes--) this.#change()
    return this.#whole()
  }

  #whole(): Uint8Array {
    return this.#buffer.subarray(0, this.#length - (this.#length % this.#grain))
  }

  /** Fast, and even enough. */
  #below(bound: number): number {
    return Math.floor((this.#random.u32() / 0x1_0000_0000) * bound)
  }

  #change(): void {
    const buffer = this.#buffer
    const random = this.#random
    const draw = random.u32() & 15
    if (this.#length === 0 && draw < 8) return
    const at = this.#below(this.#length)
    switch (draw) {
      case 0:
      case 1:
      case 2:
        buffer[at]! ^= 1 << (random.u32() & 7)
        return
      case 3:
      case 4:
        buffer[at] = random.u32()
        return
      case 5:
      case 6:
        buffer[at] = edges[this.#below(edges.length)]!
        return
      case 7: {
        const word = at & ~3
        const value = random.u32() & 1 ? random.u32() : edges[this.#below(edges.length)]! - (random.u32() & 1 ? 256 : 0)
        for (let byte = 0; byte < 4 && word + byte < this.#length; byte++) buffer[word + byte] = value >>> (8 * byte)
        return
      }
      case 8:
      case 9:
        this.#length = this.#below(this.#length + 1)
        return
      case 10: {
        // Removes a piece.
        const bytes = this.#below(Math.min(16, this.#length - at) + 1)
        buffer.copyWithin(at, at + bytes, this.#length)
        this.#length -= bytes
        return
      }
      case 11: {
        // Repeats a piece.
        const bytes = Math.min(this.#below(24), this.#length - at, buffer.length - this.#length)
        if (bytes <= 0) return
        buffer.copyWithin(at + bytes, at, this.#length)
        this.#length += bytes
        return
      }
      case 12:
      case 13: {
        const word = this.#words.length > 0 ? this.#words[this.#below(this.#words.length)]! : undefined
        if (word !== undefined) this.#insert(at, word)
        else this.#insert(at, buffer.slice(this.#below(this.#length), this.#length).subarray(0, 8))
        return
      }
      case 14: {
        // Goes on as another input.
        const other = this.#inputs[this.#below(this.#inputs.length)]!
        const from = Math.min(at, other.length)
        const end = Math.min(other.length, buffer.length)
        buffer.set(other.subarray(from, end), from)
        this.#length = Math.max(from, end)
        return
      }
      default: {
        const bytes = Math.min(this.#below(8), buffer.length - this.#length)
        for (let byte = 0; byte < bytes; byte++) buffer[this.#length + byte] = random.u32()
        this.#length += bytes
      }
    }
  }

  #insert(at: number, piece: Uint8Array): void {
    const bytes = Math.min(piece.length, this.#buffer.length - this.#length)
    if (bytes <= 0) return
    this.#buffer.copyWithin(at + bytes, at, this.#length)
    this.#buffer.set(piece.subarray(0, bytes), at)
    this.#length += bytes
  }
}

/** The bytes of a text of one byte per character. */
export function latin1Of(text: string): Uint8Array {
  return Buffer.from(text, 'latin1')
}

/** The text of bytes, one character each. */
export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
}
