import assert from 'node:assert/strict'
import { test } from 'node:test'
import { codesNotGivenYet, errorTable, readReadme, sectionOf, tableRows } from '../../scripts/readme.ts'
import {
  type ErrorCode,
  ErrorTable,
  errorCodeOf,
  errorNumberOf,
  OutcomeNumber,
  outcomeOf,
  SunwiseError,
} from '../../src/base/errors.ts'

const codes = Object.keys(ErrorTable) as ErrorCode[]

test('Errors: the table of the README has every code of the program, and the program every code of the table', () => {
  const rows = tableRows(sectionOf(readReadme(), 'errors'))
  const documented = new Map(rows.map(([code, ...cells]) => [code!.replaceAll('`', ''), cells]))
  assert.equal(documented.size, rows.length, 'A code stands twice in the README')
  for (const code of codes) {
    const cells = documented.get(code)
    assert.ok(cells !== undefined, `${code} is missing in the README; node scripts/readme.ts writes it`)
    const { status, outcome, retryable, exit, title } = ErrorTable[code]
    const [statusText, outcomeText, retryText, exitText, meaning] = cells
    assert.deepEqual([statusText, outcomeText, exitText], [String(status), outcome, String(exit)], code)
    assert.equal(retryText, retryable ? 'yes' : 'no', code)
    assert.ok(meaning!.startsWith(title), code)
    assert.equal(meaning!.endsWith('(reserved: nothing gives it yet)'), codesNotGivenYet().includes(code), code)
  }
  for (const code of documented.keys()) assert.ok(Object.hasOwn(ErrorTable, code), `${code} is only in the README`)
  assert.equal(sectionOf(readReadme(), 'errors'), errorTable(), 'node scripts/readme.ts writes it again')
})

test('Errors: every row has a status that HTTP can send, and an outcome and an exit code that agree with it', () => {
  for (const code of codes) {
    const { status, outcome, retryable, exit, title } = ErrorTable[code]
    assert.match(code, /^[A-Z]+(_[A-Z]+)*$/)
    assert.ok(status >= 400 && status <= 599, code)
    assert.match(title, /^[A-Z].*[^.]$/, `${code}: a title is a sentence without its full stop`)
    // What the client got wrong has changed nothing; the deadline and the abort of a caller are the exceptions.
    if (status < 500 && code !== 'ABORTED') assert.equal(outcome, 'none', code)
    if (exit === 6) assert.equal(outcome, 'unknown', code)
    if (exit === 2 || exit === 3 || exit === 4) assert.ok(!retryable && outcome === 'none', code)
    if (status === 503) assert.ok(retryable && exit === 5, code)
  }
})

test('SunwiseError has status, outcome and retryable of its row, and an outcome of its own where one is given', () => {
  for (const code of codes) {
    const error = new SunwiseError(code, 'Cannot do it')
    const { status, outcome, retryable } = ErrorTable[code]
    assert.deepEqual(
      [error.code, error.status, error.outcome, error.retryable, error.message, error.name],
      [code, status, outcome, retryable, 'Cannot do it', 'SunwiseError'],
    )
    assert.equal('cause' in error, false)
    assert.equal(error.extra, undefined)
  }
  const cause = new Error('below')
  const error = new SunwiseError('DISK_FULL', 'Cannot write', { outcome: 'unknown', cause, extra: { etag: 'x' } })
  assert.equal(error.outcome, 'unknown')
  assert.equal(error.cause, cause)
  assert.deepEqual(error.extra, { etag: 'x' })
  assert.ok(error instanceof Error)
})

test('Numbers of codes and outcomes lead back to them; an unknown number is a bug and says so', () => {
  const numbers = codes.map((code) => errorNumberOf.get(code)!)
  assert.deepEqual(
    numbers.map((number) => errorCodeOf(number)),
    codes,
  )
  assert.ok(
    numbers.every((number) => number > 0 && number < 0x10000),
    '0 is success, and a frame has 16 bits',
  )
  assert.equal(errorCodeOf(0), 'INTERNAL')
  assert.equal(errorCodeOf(codes.length + 1), 'INTERNAL')
  for (const outcome of ['none', 'partial', 'unknown'] as const)
    assert.equal(outcomeOf(OutcomeNumber[outcome]), outcome)
  assert.equal(outcomeOf(255), 'unknown', 'In doubt nobody is told that nothing was written')
})
