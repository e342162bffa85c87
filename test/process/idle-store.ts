/**
 * A program that opens a store, writes one key, and does nothing more: it must end by itself although it never closes the
 * store. Arguments: directory, and what to leave behind (`idle`, or `pending` for a write whose promise nobody awaits).
 */
import { open } from '../../src/index.ts'

const [dir, mode] = process.argv.slice(2)
const store = await open({ dir: dir!, shards: 1, memoryBytes: 96 * 1024 * 1024 })
await store.put('first', 'acknowledged')
if (mode === 'pending') void store.put('second', 'sent').then(() => process.stdout.write('settled '))
process.stdout.write('idle ')
