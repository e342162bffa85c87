/**
 * The turns of a thread that serves rings: work while there is something, poll a moment longer (a wake through the event loop
 * costs some 30 to 80 us, a poll a few), then announce sleep and wait for the bell. Sockets and timers run between turns.
 *
 * A thread that must let its rings be, since what they hold has to wait for others, does not turn round and round meanwhile: those
 * others may need the processor. It looks again in a moment, or when something schedules a turn.
 */
import type { Doorbell } from './doorbell.ts'
import type { ThreadLinks } from './thread-links.ts'

/** How long an idle thread polls before it sleeps. Short, so that two threads on two cores do not starve a third. */
const pollMs = 0.02

/** When a thread that is held up looks again, milliseconds. */
const heldUpMs = 1

/** What came of a turn: something was done; nothing was there; what is there has to wait for others. */
export type TurnResult = 'worked' | 'idle' | 'heldUp'

/** How long a turn takes messages, milliseconds: then sockets and timers have theirs. */
export const turnMsMax = 1

export class TurnLoop {
  readonly #links: ThreadLinks
  readonly #work: () => TurnResult
  #timer: NodeJS.Timeout | undefined
  #isScheduled = false
  #isHeldUp = false
  #isAsleep = false
  #isStopped = false
  #lastWorkMs = 0
  /** Longest turn so far, milliseconds. */
  longestTurnMs = 0
  turns = 0

  /** `work` drains rings and acts on what came. */
  constructor(links: ThreadLinks, bell: Doorbell, work: () => TurnResult) {
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
    clearTimeout(this.#timer)
  }

  readonly #scheduled = (): void => {
    this.#isScheduled = false
    this.#turn()
  }

  readonly #lookAgain = (): void => {
    this.#isHeldUp = false
    this.#turn()
  }

  #turn(): void {
    if (this.#isStopped) return
    if (this.#isAsleep) {
      this.#isAsleep = false
      this.#links.awake()
    }
    const startMs = performance.now()
    const result = this.#work()
    this.#links.publish()
    const endMs = performance.now()
    this.turns++
    if (endMs - startMs > this.longestTurnMs) this.longestTurnMs = endMs - startMs
    if (result === 'worked') this.#lastWorkMs = endMs
    if (this.#isScheduled) return
    if (result === 'heldUp') this.#waitAMoment()
    else if (result === 'worked' || endMs - this.#lastWorkMs < pollMs) this.schedule()
    else if (this.#links.prepareSleep()) this.#isAsleep = true
    else this.schedule()
  }

  #waitAMoment(): void {
    if (this.#isHeldUp) return
    this.#isHeldUp = true
    if (this.#timer === undefined) this.#timer = setTimeout(this.#lookAgain, heldUpMs)
    else this.#timer.refresh()
  }
}
