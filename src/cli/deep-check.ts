/** The part of `doctor` that reads all logs of a data directory, one verdict per shard, and looks at the ends of its tables. */
import { glanceAtTables } from '../host/directory-check.ts'
import { checkLogs } from '../host/log-check.ts'
import type { DeepCheck, Verdict } from './doctor-command.ts'
import { formatBytes, formatCount } from './quantity.ts'

export const deepCheck: DeepCheck = async (directory) => {
  const findings = await checkLogs(directory)
  const logs = findings.map(({ shard, records, bytes, droppedBytes, error }): Verdict => {
    const check = `log of shard ${shard}`
    if (error !== undefined) {
      return { check, state: 'bad', detail: error.message, advice: 'restore a backup, or start once with --salvage' }
    }
    const detail = `${formatCount(records)} records, ${formatBytes(bytes)}`
    if (droppedBytes === 0) return { check, state: 'ok', detail }
    const torn = `${detail}; ${formatBytes(droppedBytes)} of a torn tail`
    return { check, state: 'ok', detail: `${torn} that was never synced: the next start drops it` }
  })
  return [...logs, await tablesVerdict(directory)]
}

async function tablesVerdict(directory: string): Promise<Verdict> {
  const check = 'tables'
  const { tables, findings } = await glanceAtTables(directory)
  const detail = `${formatCount(tables)} tables`
  if (findings.length === 0) return { check, state: 'ok', detail: `${detail}; "sunwise verify" reads them whole` }
  const advice = 'restore a backup; "sunwise verify" names all damage'
  return { check, state: 'bad', detail: `${detail}, ${findings.length} damaged: ${findings[0]}`, advice }
}
