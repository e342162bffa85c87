/** Puts, gets and updates of a client while something happens to its cluster, and a judge of what failed. */
import assert from 'node:assert/strict'
import { type Client, SunwiseError } from '../../src/client/connect.ts'

export const text = (value: Uint8Array | undefined): string | undefined =>
  value === undefined ? undefined : Buffer.from(value).toString()

/** Words of all siblings, each once. */
export const union =
  (word: string) =>
  (values: readonly { readonly value: Uint8Array }[]): string =>
    [...new Set([...values.flatMap(({ value }) => text(value)!.split(' ')), word])].sort().join(' ')

type Failure = { readonly what: string; readonly error: SunwiseError; readonly afterMs: number }

/** Lanes of operations, until told to stop. */
export class ClientLoad {
  readonly #client: Client
  readonly #timeoutMs: number
  readonly #failures: Failure[] = []
  readonly #acknowledged = new Map<string, string>()
  readonly #lanes: Promise<void>[]
  #isOver = false
  done = 0

  /** `timeoutMs` is what the client was made with. */
  constructor(client: Client, timeoutMs: number, lanes: number) {
    this.#client = client
    this.#timeoutMs = timeoutMs
    this.#lanes = Array.from({ length: lanes }, (_, lane) => this.#run(lane))
  }

  async #run(lane: number): Promise<void> {
    for (let index = 0; !this.#isOver; index++) {
      const [key, value] = [`lane ${lane} ${index}`, `value ${index}`]
      await this.#attempt(`put ${key}`, async () => {
        await this.#client.put(key, value)
        this.#acknowledged.set(key, value)
      })
      await this.#attempt(`get ${key}`, () => this.#client.get(key))
      await this.#attempt(`update ${lane}`, () => this.#client.update(`set ${lane}`, union(`${index % 10}`)))
    }
  }

  async #attempt(what: string, work: () => Promise<unknown>): Promise<void> {
    const startedAt = performance.now()
    try {
      await work()
      this.done++
    } catch (error) {
      assert.ok(error instanceof SunwiseError, String(error))
      this.#failures.push({ what, error, afterMs: performance.now() - startedAt })
    }
  }

  /**
   * Ends the load, and checks that what failed could not have been done elsewhere: it may have been applied, or there was no time left. What
   * was acknowledged is there. Gives the number of failures.
   */
  async finish(): Promise<number> {
    this.#isOver = true
    await Promise.all(this.#lanes)
    for (const { what, error, afterMs } of this.#failures) {
      const couldNot = error.outcome === 'unknown' || afterMs > this.#timeoutMs / 2
      assert.ok(couldNot, `${what} failed after ${afterMs} ms: ${error.code} ${error.outcome} ${error.message}`)
    }
    const keys = [...this.#acknowledged.keys()]
    const entries = await Promise.all(keys.map((key) => this.#client.get(key, { timeoutMs: 60_000 })))
    const found = entries.map(({ value }) => text(value))
    assert.deepEqual(found, [...this.#acknowledged.values()])
    return this.#failures.length
  }
}
