/**
 * A program with an embedded store that writes one key after the other and tells on stdout what became of each, as JSON lines.
 * It goes on over errors until the store has failed for good; then it ends by itself, without closing anything.
 * Arguments: directory.
 */
import { open, SunwiseError } from '../../src/index.ts'

const [dir] = process.argv.slice(2)
const say = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
const store = await open({
  dir: dir!,
  shards: 2,
  memoryBytes: 160 * 1024 * 1024,
  log: (line) => say({ log: line }),
})
for (let index = 0; ; index++) {
  const key = `key ${index % 50}`
  try {
    await store.put(key, String(index))
    say({ key, value: String(index), acknowledged: true })
  } catch (error) {
    const { code, outcome } = error instanceof SunwiseError ? error : { code: String(error), outcome: 'unknown' }
    say({ key, value: String(index), code, outcome })
    if (code === 'WORKERS_FAILED') break
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
let readCode: unknown
try {
  store.getSync('key 0')
} catch (error) {
  readCode = error instanceof SunwiseError ? error.code : error
}
say({ readCode })
