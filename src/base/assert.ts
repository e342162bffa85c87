/**
 * Assertions are for our own bugs only: a false condition means that this program is wrong, and the thread that finds it
 * must stop. Never assert on bytes from disk, wire or client; those get a coded error (errors.ts).
 */

/** Thrown by `assert`: a bug in Sunwise itself, never an operational failure. */
export class AssertionError extends Error {
  override name = 'AssertionError'
}

/** Stops the caller when `condition` is false. `message` is a literal: building one would cost time on hot paths. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}

/** Closes an exhaustive switch: the compiler proves that `value` has no cases left. */
export function unreachable(value: never): never {
  throw new AssertionError(`Unreachable case: ${String(value)}`)
}
