// Package fleet is the init system of the cluster: see the packages below it.
//
// Keys of the registry, below /_coreos.com/fleet/ (docs/formats/registry.md has their
// fields):
//
//	key                        value                                          writer, lease
//	job/UNIT/object            {"Name","UnitHash":[20 numbers],"Raw":text}    API
//	job/UNIT/target-state      inactive | loaded | launched                   API
//	job/UNIT/restart           empty; as new as target-state: start anew      API
//	schedule/MACHINE/UNIT      {"hash","text","desired","gen","leaving"}      engine
//	unplaced/UNIT              {"why","verdicts":[...]}                       engine
//	states/MACHINE/UNIT        {"loadState","activeState","subState",...}     agent of MACHINE, its lease
//	machines/ID/object         {"ID","PublicIP","Metadata","Version",...}     agent of ID, its lease
//	machines/ID/metadata/KEY   value; "" masks the configured one             API
//	machines/ID/cordon         {"drain","why","by","at"}                      API
//	history/UNIT/SEQ           {"hash","text","at","by","why"}                API; engine when it reverts
//	destroyed/UNIT             {"at"}                                         API; engine forgets it a day later
//	roll/GROUP                 {"state","from","to","texts",...}              engine; API: "asked", "askedBy"
//	ask/KIND-RANDOM            {"kind","unit","machine","max","by","at"}      API; engine removes it when done
//	events/TIME-RANDOM         {"at","kind","unit","machine","what",...}      API and engine; engine trims
//	slots/UNIT/NUMBER          machine id: one of MaxRunning= at a time          agent of that machine, its lease
//	lease/engine-leader        {"MachineID","Version":1,"Instance","Boot"}    engine, its lease
//	engine/hold                reason why moves are held                      engine
//	mark                       random; tells this registry from another one   first reader, for good
package fleet
