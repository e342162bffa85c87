/**
 * The turns of a thread that serves rings: work while there is something, poll a moment longer (a wake through the event loop
 * costs some 30 to 80 us, a poll a few), then announce sleep and wait for the bell. Sockets and timers run between turns.
 */
import type { Doorbell } from './doorbell.ts'
import type { ThreadLinks } from './thread-links.ts'

/** How long an idle thread polls before it sleeps. Short, so that two threads on two cores do not starve a third. */
const pollMs = 0.02

/** How long a turn takes messages, milliseconds: then sockets and timers have theirs. */
export const turnMsMax = 1

export class TurnLoop {
  readonly #links: ThreadLinks
  readonly #work: () => boolean
  #isScheduled = false
  #isAsleep = false
  #isStopped = false
  #lastWorkMs = 0
  /** Longest turn so far, milliseconds. */
  longestTurnMs = 0
  turns = 0

  /** `work` drains rings and acts on what came; true if there was anything. */
  constructor(links: ThreadLinks, bell: Doorbell, work: () => boolean) {
    this.#links = links
    this.#work = work
    bell.onWake(() => this.#turn())
  }

  /** Runs a turn when the event loop comes to it. */
  readonly schedule = (): void => {
    if (this.#isScheduled || this.#isStopped) return
    this.#isScheduled = true
    setImmediate(this.#scheduled)
  }

  stop(): void {
    this.#isStopped = true
  }

  readonly #scheduled = (): void => {
    this.#isScheduled = false
    this.#turn()
  }

  #turn(): void {
    if (this.#isStopped) return
    if (this.#isAsleep) {
      this.#isAsleep = false
      this.#links.awake()
    }
    const startMs = performance.now()
    const worked = this.#work()
    this.#links.publish()
    const endMs = performance.now()
    this.turns++
    if (endMs - startMs > this.longestTurnMs) this.longestTurnMs = endMs - startMs
    if (worked) this.#lastWorkMs = endMs
    if (this.#isScheduled) return
    if (worked || endMs - this.#lastWorkMs < pollMs) this.schedule()
    else if (this.#links.prepareSleep()) this.#isAsleep = true
    else this.schedule()
  }
}
