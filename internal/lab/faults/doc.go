// Package faults judges the store on lab machines while they are being broken.
//
// Clients set, compare, delete and read keys over the v2 API, each with a time limit,
// and write down what they asked and were told; watchers follow every change. Meanwhile
// a plan made from a seed kills, pauses, freezes, cuts off and slows down machines, one
// fault or two at a time. Then the history is judged: by a model of one file, whether
// some order of the requests explains every answer (linearizability, with porcupine),
// and by the watch checks, whether each watcher saw every change once and in order.
//
// A request whose answer never came may have been carried out, at any later time, or
// never: it is open-ended. One that was never sent is no part of the history.
//
// Plan, the model and the watch checks are functions of their arguments alone. Run does
// the rest and leaves the machines as they were.
package faults
