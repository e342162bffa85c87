/** The part of `doctor` that reads all logs of a data directory: one verdict per shard. */
import { checkLogs } from '../host/log-check.ts'
import type { DeepCheck } from './doctor-command.ts'
import { formatBytes, formatCount } from './quantity.ts'

export const deepCheck: DeepCheck = async (directory) => {
  const findings = await checkLogs(directory)
  return findings.map(({ shard, records, bytes, droppedBytes, error }) => {
    const check = `log of shard ${shard}`
    if (error !== undefined) {
      return { check, state: 'bad', detail: error.message, advice: 'restore a backup, or start once with --salvage' }
    }
    const detail = `${formatCount(records)} records, ${formatBytes(bytes)}`
    if (droppedBytes === 0) return { check, state: 'ok', detail }
    const torn = `${detail}; ${formatBytes(droppedBytes)} of a torn tail`
    return { check, state: 'ok', detail: `${torn} that was never synced: the next start drops it` }
  })
}
