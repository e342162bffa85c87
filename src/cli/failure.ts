/** How a failed command ends: its exit code, and what it says on stderr. */
import { ErrorTable, SunwiseError } from '../base/errors.ts'
import type { OutputFormat } from './settings.ts'
import { note, styled, type Terminal } from './terminal.ts'

/** 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 unavailable, 6 unknown outcome. */
export type ExitCode = 0 | 1 | 2 | 3 | 4 | 5 | 6

/** Any failure as a coded one; errors of the system keep their text, since it names the file and the reason. */
export function codedErrorOf(error: unknown): SunwiseError | Error {
  return error instanceof Error ? error : new Error(String(error))
}

/**
 * The exit code of a failure: its row in the table of errors. A failure that usually changes nothing but this time may have
 * (a connection lost behind a write) is an unknown outcome.
 */
export function exitCodeOf(error: unknown): ExitCode {
  if (!(error instanceof SunwiseError)) return 1
  const row = ErrorTable[error.code]
  return error.outcome !== 'none' && row.outcome === 'none' ? 6 : row.exit
}

/** Says on stderr what failed, as text or as one JSON object. */
export function reportFailure(terminal: Terminal, error: unknown, output: OutputFormat): void {
  const failure = codedErrorOf(error)
  const coded = failure instanceof SunwiseError ? failure : undefined
  if (output === 'json') {
    const { code, outcome, retryable, status } = coded ?? { code: 'INTERNAL', outcome: 'unknown', retryable: false }
    note(terminal, JSON.stringify({ ...coded?.extra, error: failure.message, code, outcome, retryable, status }))
    return
  }
  const details =
    coded === undefined ? '' : ` (${coded.code}${coded.outcome === 'none' ? '' : `, outcome ${coded.outcome}`})`
  note(terminal, `${styled(terminal, terminal.stderr, 'red', 'error:')} ${failure.message}${details}`)
  // Failures of the system (a missing file) explain themselves; anything else without a code is a bug, and needs its trace.
  if (coded?.code === 'INTERNAL' || (coded === undefined && !('syscall' in failure))) {
    note(terminal, failure.stack ?? '')
  }
}
